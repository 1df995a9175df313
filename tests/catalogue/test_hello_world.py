from __future__ import annotations

from collections.abc import Callable
from types import ModuleType


def test_it_greets(load: Callable[[str], ModuleType]) -> None:
    assert load("examples/hello-world/handler.py").run({}) == {"message": "Hello World from plugin!"}
