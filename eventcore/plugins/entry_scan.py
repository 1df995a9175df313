"""What a plugin's entry file seems to handle, found without running it."""

from __future__ import annotations

import ast
import os

from eventcore.hooks.specs import likely_slip
from eventcore.kernel.errors import Problem
from eventcore.plugins.manifest.model import PluginManifest

#: A larger entry file is not looked through: parsing takes some 100 times its size in memory.
_MOST_BYTES = 2 * 1024 * 1024


def scan_entry(manifest: PluginManifest) -> list[Problem]:
    """Problems of the entry file that its syntax shows: that it has none; functions `on_...` that look like slips."""
    file = os.path.join(os.path.dirname(manifest.path) or ".", manifest.entry_file)
    try:
        if os.path.getsize(file) > _MOST_BYTES:
            return []
        with open(file, "rb") as source:
            tree = ast.parse(source.read(), file)
    except OSError:
        return []  # `check_folder` says that there is none
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        return [Problem(file, line, "", f"is not Python: {text}")]
    return [
        Problem(file, node.lineno, node.name, f"did you mean {meant!r}?", warning=True)
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("on_")
        and (meant := likely_slip(node.name))
    ]
