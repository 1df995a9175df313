"""Printing: JSON, tables, and text that may hold anything."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

#: A state or status -> its colour on a terminal.
COLOURS = {
    **dict.fromkeys(("enabled", "completed", "ok"), "green"),
    **dict.fromkeys(("failed", "error", "terminated"), "red"),
    **dict.fromkeys(("waiting", "retrying", "queued", "paused", "cancelled", "running"), "yellow"),
    **dict.fromkeys(("disabled", "discovered", "skipped"), "bright_black"),
}


def on_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def clean(text: str, *, lines: bool = False) -> str:
    """Text from events and plugins, made safe for a terminal: control characters are escaped.

    Args:
        lines: leave line ends and tabs as they are.
    """
    return (_CONTROL_BUT_LINES if lines else _CONTROL).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(code) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def compact(value: Any) -> str:
    """JSON on one line."""
    return clean(json.dumps(value, ensure_ascii=False))


def pretty(value: Any) -> str:
    """JSON on several lines."""
    return clean(json.dumps(value, ensure_ascii=False, indent=2), lines=True)


def print_json(value: Any) -> None:
    """The one result of a command."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_line(value: Any) -> None:
    """One of many results: one line each, at once."""
    click.echo(json.dumps(value, ensure_ascii=False))
    sys.stdout.flush()


def fit(text: str, used: int = 0) -> str:
    """Cut a line that would wrap on a terminal; in a pipe it stays whole.

    Args:
        used: columns that stand before it.
    """
    if not on_terminal():
        return text
    room = max(10, shutil.get_terminal_size().columns - used)
    return text if len(text) <= room else text[: room - 1] + "…"


def status(word: str) -> str:
    """A state in its colour."""
    return click.style(word, fg=COLOURS.get(word))


def dim(text: str) -> str:
    """Text that is there for those who look for it."""
    return click.style(text, dim=True)


def title(text: str) -> str:
    """A heading."""
    return click.style(text, bold=True)


def duration(seconds: float | None) -> str:
    """`4 ms`, `1.3 s`, `2 min 5 s`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def local_time(text: str | None) -> str:
    """An RFC 3339 time as local time, to the second; empty for None."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S") if text else ""


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 run`, `2 runs`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """`name  value` lines; empty values are left out, and those of several lines stand below their name."""
    shown = [(name, str(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        if "\n" in value:
            click.echo(f"{dim(name)}\n{textwrap.indent(value.rstrip(), '  ')}")
        else:
            click.echo(f"{dim(name.ljust(width))}  {value}")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str, colour: int | None = None) -> None:
    """A table. On a terminal the last column is cut to fit; in a pipe every cell is whole.

    Args:
        nothing: what to say in place of a table without rows.
        colour: the column whose words are states.
    """
    if not rows:
        click.echo(nothing, err=True)
        return
    cells = [[clean(cell) for cell in row] for row in rows]
    if on_terminal():
        _rich_table(headers, cells, colour)
        return
    widths = [max(len(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]
    for line in [[header.upper() for header in headers], *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]], colour: int | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    last = len(headers) - 1
    for number, header in enumerate(headers):
        # Only the last column gives way; its cells are cut rather than wrapped.
        shown.add_column(header, no_wrap=number != last)
    for line in cells:
        texts = [Text(cell, no_wrap=True, overflow="ellipsis") for cell in line]
        if colour is not None:
            texts[colour].stylize(COLOURS.get(line[colour], "default"))
        shown.add_row(*texts)
    Console(highlight=False, soft_wrap=False).print(shown)
