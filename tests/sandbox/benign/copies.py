"""Copies of files and trees, with their modes and times, moves, and searches."""

import os
import shutil
from pathlib import Path

EXPECTED = {"copied": ["a.txt", "b", "b/c.txt"], "moved": True, "listed": 2}


def run(params):
    base = Path("tree")
    (base / "b").mkdir(parents=True)
    (base / "a.txt").write_text("a")
    (base / "b" / "c.txt").write_text("c")
    shutil.copy(base / "a.txt", "copy.txt")
    shutil.copy2(base / "a.txt", "copy2.txt")
    os.chmod("copy.txt", 0o600)
    shutil.copytree(base, "other")
    shutil.move("copy.txt", "moved.txt")
    copied = sorted(str(path.relative_to("other")) for path in Path("other").rglob("*"))
    shutil.rmtree("other")
    return {"copied": copied, "moved": os.path.exists("moved.txt"), "listed": len(list(Path().glob("*.txt")))}
