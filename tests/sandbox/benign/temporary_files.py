"""Temporary files and folders, of all kinds."""

import os
import tempfile
from pathlib import Path

EXPECTED = {"named": "abc", "spooled": 3, "gone": True, "tmp": "x"}


def run(params):
    with tempfile.NamedTemporaryFile("w+", suffix=".txt") as file:
        file.write("abc")
        file.flush()
        named = Path(file.name).read_text()
    with tempfile.SpooledTemporaryFile(max_size=1) as file:
        spooled = file.write(b"abc")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a" / "b").mkdir(parents=True)
        (Path(folder) / "a" / "b" / "c").touch()
    Path("relative.txt").write_text("x")
    return {
        "named": named,
        "spooled": spooled,
        "gone": not os.path.exists(folder),
        "tmp": Path("relative.txt").read_text(),
    }
