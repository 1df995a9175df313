"""Answers the intent `hello_world`."""

from __future__ import annotations

from typing import Any


def run(params: dict[str, Any]) -> dict[str, Any]:
    """The greeting. Parameters are ignored."""
    return {"message": "Hello World from plugin!"}
