"""The SQL of this package: named statements from `queries.sql`, read once."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def parse(text: str) -> dict[str, str]:
    """The statements of a file by name, without comments and the last semicolon.

    Raises:
        ValueError: a name stands there twice, or without a comment that says what it is for.
    """
    parts = _NAME.split(text)[1:]
    statements: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        lines = body.strip().splitlines()
        if name in statements or not lines[0].startswith("-- "):
            raise ValueError(f"statement {name!r} is named twice or lacks its comment")
        code = "\n".join(line for line in lines if not line.startswith("--"))
        statements[name] = code.strip().removesuffix(";")
    return statements


SQL = parse((HERE / "queries.sql").read_text(encoding="utf-8"))
