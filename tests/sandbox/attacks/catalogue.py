"""Reads a corpus: which attacks there are, and what each says of itself. Runs none of it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
_ON_IMPORT = "on_import_"


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile handler.

    Attributes:
        file: its module, relative to the corpus.
        function: what to call in it.
        tries: what it is after.
        stopped_by: what must stop it.
        granted: what it is given beyond its workspace: nothing, `a port` or `a program`.
        excepted: the levels at which nothing stops it, and which say so.
        needs: what not every kernel has, and without which it succeeds nowhere.
    """

    file: str
    function: str
    tries: str
    stopped_by: str
    granted: str = ""
    excepted: tuple[str, ...] = ()
    needs: str = ""

    @property
    def name(self) -> str:
        stem = Path(self.file).stem
        return stem if stem.startswith(_ON_IMPORT) else f"{stem}.{self.function}"


def attacks(corpus: Path = CORPUS) -> list[Attack]:
    """All attacks of a corpus, in the order of their files.

    Raises:
        ValueError: there are none.
    """
    found = [
        one for file in sorted(corpus.rglob("*.py")) for one in _of_file(file, file.relative_to(corpus).as_posix())
    ]
    if not found:
        raise ValueError(f"{corpus} holds no attacks: functions with one parameter, `planted`, in .py files")
    return found


def _of_file(path: Path, name: str) -> list[Attack]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name.startswith(_ON_IMPORT):
        return [_described(name, "run", ast.get_docstring(tree) or "")]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [
        _described(name, node.name, ast.get_docstring(node) or "")
        for node in functions
        if [argument.arg for argument in node.args.args] == ["planted"]
    ]


def _described(file: str, function: str, text: str) -> Attack:
    said = dict(line.split(":", 1) for line in text.splitlines()[1:] if ":" in line)
    words = {name.strip(): value.strip().rstrip(".") for name, value in said.items()}
    excepted = tuple(words["Not stopped"].replace(",", " ").split()) if "Not stopped" in words else ()
    tries = text.split("\n", 1)[0]
    stopped, granted, needs = (words.get(name, "") for name in ("Stopped by", "Granted", "Needs"))
    return Attack(file, function, tries, stopped, granted, excepted, needs)
