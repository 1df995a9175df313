"""The catalogue's plugins as tests see them: files, loaded by path."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def load() -> Callable[[str], ModuleType]:
    """Import `category/slug/file.py` under a name of its own."""

    def load_file(file: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location("catalogue_" + file.replace("/", "_")[:-3], PLUGINS / file)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_file
