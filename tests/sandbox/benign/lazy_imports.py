"""Imports late, and finds what is installed, its own files, and what the machine is."""

import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import os
import platform
import sys

EXPECTED = {"late": "OrderedDict", "missing": True, "version": True, "own": True, "system": "Linux", "name": True}


def run(params):
    return {
        "late": importlib.import_module("collections").OrderedDict.__name__,
        "missing": importlib.util.find_spec("no_such_module_anywhere") is None,
        "version": bool(importlib.metadata.version("pydantic")),
        "own": "lazy_imports" in importlib.resources.files(__package__).joinpath("lazy_imports.py").read_text(),
        "system": platform.system(),
        "name": bool(sys.version_info >= (3, 11) and os.cpu_count() and os.uname().release),
    }
