"""Watches one call of a plugin: which lines ran, and the local variables at breakpoints.

`sys.settrace` sees the plugin's own files only. It slows the code down, and the call's limits stay what they are.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

#: Bounds of one report, so that it fits into a frame of the channel beside the result.
MAX_LINES = 5_000
MAX_HITS = 64
MAX_VARIABLES = 40
MAX_VALUE = 300
MAX_CHARACTERS = 150_000


class BreakpointError(Exception):
    """A breakpoint names no line of the plugin."""


class Tracer:
    """Use it as a context manager around the call, then `report()`.

    Args:
        folder: the plugin's folder.
        breakpoints: `FILE:LINE`, the file relative to the folder. A line that holds no code stands for the next one
            that does.
        lines: whether to keep the list of lines that ran.

    Raises:
        BreakpointError: there is no such file, or no code at the line or after it.
    """

    def __init__(self, folder: Path, breakpoints: Sequence[str], *, lines: bool) -> None:
        self.root = f"{folder}/"
        self._lines = lines
        self._breaks: dict[str, dict[int, str]] = {}
        for text in breakpoints:
            path, line = _place(folder, text)
            self._breaks.setdefault(path, {})[line] = text
        self._trace: list[list[Any]] = []
        self._hits: list[dict[str, Any]] = []
        self._dropped = 0
        self._left = MAX_CHARACTERS
        self._repr = reprlib.Repr()
        self._repr.maxstring = self._repr.maxother = MAX_VALUE
        self._repr.maxdict = self._repr.maxlist = self._repr.maxtuple = self._repr.maxset = 20

    def __enter__(self) -> Tracer:
        sys.settrace(self._enter)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(None)

    def report(self) -> dict[str, Any]:
        """`trace`: [file, line, function] in the order in which they ran; `hits`: each arrival at a breakpoint with its
        `breakpoint`, `file`, `line`, `function` and `locals` (name -> repr); `dropped`: what did not fit.
        """
        return {"trace": self._trace, "hits": self._hits, "dropped": self._dropped}

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name.startswith(self.root) and (self._lines or name in self._breaks):
            return self._step
        return None

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            name, line = frame.f_code.co_filename, frame.f_lineno
            if self._lines:
                self._note(name, line, frame.f_code.co_name)
            if asked := self._breaks.get(name, {}).get(line):
                self._stop(asked, frame)
        return self._step

    def _note(self, name: str, line: int, function: str) -> None:
        if len(self._trace) < MAX_LINES:
            self._trace.append([name.removeprefix(self.root), line, function])
        else:
            self._dropped += 1

    def _stop(self, asked: str, frame: FrameType) -> None:
        if len(self._hits) >= MAX_HITS or self._left <= 0:
            self._dropped += 1
            return
        code = frame.f_code
        self._hits.append(
            {
                "breakpoint": asked,
                "file": code.co_filename.removeprefix(self.root),
                "line": frame.f_lineno,
                "function": code.co_name,
                "locals": dict(self._variables(frame.f_locals)),
            }
        )

    def _variables(self, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name in list(found)[:MAX_VARIABLES]:
            text = self._value(found[name])
            self._left -= len(name) + len(text)
            yield name, text

    def _value(self, value: Any) -> str:
        try:
            text = self._repr.repr(value)
        except Exception as error:  # noqa: BLE001 - a `__repr__` of the plugin's own may do anything
            return f"<repr raised {type(error).__name__}>"
        return text.encode("utf-8", "backslashreplace").decode()[:MAX_VALUE]


def _place(folder: Path, text: str) -> tuple[str, int]:
    name, _, number = text.rpartition(":")
    if not name or not number.isdigit():
        raise BreakpointError(f"{text!r} is no breakpoint; write FILE:LINE, as in handler.py:25")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise BreakpointError(f"{text}: the plugin has no file {name!r}")
    wanted = int(number)
    source = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    after = sorted(line for line in set(_lines_of(source)) if line >= wanted)
    if not after:
        raise BreakpointError(f"{text}: there is no code at line {wanted} or after it")
    return str(folder / name), after[0]


def _lines_of(code: CodeType) -> Iterator[int]:
    """Lines of functions: what stands at the top of a module has run before the call."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from (line for _, _, line in constant.co_lines() if line and line != constant.co_firstlineno)
            yield from _lines_of(constant)
