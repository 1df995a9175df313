"""Reads a corpus: which attacks there are, and what each says of itself. Runs none of it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
_ON_IMPORT = "on_import_"
#: What an entry point is called in a corpus that was not written for us: the file is then one attack, named after it.
_ENTRIES = ("run", "attack", "handler", "handle", "execute", "main", "exploit")
#: Files that stand for their folder, which is then the plugin's.
_STAND_FOR_FOLDER = ("handler", "main", "plugin", "attack", "__init__")


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
        whole: the file is one attack.
    """

    file: str
    function: str
    tries: str
    stopped_by: str
    granted: str = ""
    excepted: tuple[str, ...] = ()
    needs: str = ""
    whole: bool = False

    @property
    def name(self) -> str:
        path = Path(self.file).with_suffix("")
        if self.folder:
            return self.folder
        return path.as_posix() if self.whole else f"{path.as_posix()}.{self.function}"

    @property
    def folder(self) -> str:
        """The folder in the corpus that is the plugin's; empty: all of the corpus."""
        path = Path(self.file)
        own = self.whole and path.stem in _STAND_FOR_FOLDER and len(path.parts) > 1
        return path.parent.as_posix() if own else ""


def attacks(corpus: Path = CORPUS) -> list[Attack]:
    """All attacks of a corpus, in the order of their files.

    Raises:
        ValueError: there are none.
    """
    found = [
        one for file in sorted(corpus.rglob("*.py")) for one in _of_file(file, file.relative_to(corpus).as_posix())
    ]
    if not found:
        raise ValueError(f"{corpus} holds no attacks; tests/sandbox/attacks/README.md says what one looks like")
    return found


def _of_file(path: Path, name: str) -> list[Attack]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what is no Python may be an attack on who reads it
        return [_described(name, "run", "", whole=True)]
    if path.name.startswith(_ON_IMPORT):
        return [_described(name, "run", ast.get_docstring(tree) or "", whole=True)]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    ours = [one for one in functions if [argument.arg for argument in one.args.args] == ["planted"]]
    if ours:
        return [_described(name, one.name, ast.get_docstring(one) or "") for one in ours]
    entry = next((one for wanted in _ENTRIES for one in functions if one.name == wanted and _takes_one(one)), None)
    if entry is None:
        return []
    return [_described(name, entry.name, ast.get_docstring(entry) or ast.get_docstring(tree) or "", whole=True)]


def _takes_one(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    given = [*function.args.posonlyargs, *function.args.args]
    return 1 <= len(given) <= 1 + len(function.args.defaults) and not any(
        default is None for default in function.args.kw_defaults
    )


def _described(file: str, function: str, text: str, *, whole: bool = False) -> Attack:
    said = dict(line.split(":", 1) for line in text.splitlines()[1:] if ":" in line)
    words = {name.strip(): value.strip().rstrip(".") for name, value in said.items()}
    excepted = tuple(words["Not stopped"].replace(",", " ").split()) if "Not stopped" in words else ()
    tries = text.split("\n", 1)[0]
    stopped, granted, needs = (words.get(name, "") for name in ("Stopped by", "Granted", "Needs"))
    return Attack(file, function, tries, stopped, granted, excepted, needs, whole)
