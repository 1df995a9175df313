"""Finds programs by the names that settings list."""

from __future__ import annotations

import os
from dataclasses import dataclass

from eventcore.kernel.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was found.

    Attributes:
        path: where it lies.
        executes: the paths that the kernel must let run: itself, and the interpreter of a script.
    """

    path: str
    executes: tuple[str, ...]


def find(name: str, folders: tuple[str, ...]) -> Program:
    """A program by its name in the folders, or by its absolute path.

    Raises:
        InvalidInput: there is none, or it is no program.
    """
    if os.path.isabs(name):
        candidates = [name]
    elif "/" in name:
        raise InvalidInput(f"{name!r} is neither a name nor an absolute path of a program")
    else:
        candidates = [os.path.join(folder, name) for folder in folders if os.path.isabs(folder)]
    for path in map(os.path.realpath, candidates):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return Program(path, (path, *_interpreter(path)))
    raise InvalidInput(
        f"there is no program {name!r}", hint=f"looked in {', '.join(folders)}; name it by its full path"
    )


def _interpreter(path: str) -> tuple[str, ...]:
    """What runs a script, by its first line."""
    with open(path, "rb") as file:
        first = file.readline(256)
    words = first[2:].split() if first.startswith(b"#!") else []
    found = tuple(os.path.realpath(os.fsdecode(word)) for word in words[:1])
    if found and os.path.basename(found[0]) == "env" and len(words) > 1:
        raise InvalidInput(f"{path} is run by env, which could run anything; list a program with its own interpreter")
    return found
