"""Reads a corpus: which attacks there are, and what each says of itself. Runs none of it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
_ON_IMPORT = "on_import_"
#: What an entry point is called in a corpus that was not written for us: the file is then one attack, named after it.
_ENTRIES = ("run", "attack", "handler", "handle", "execute", "main", "exploit")
#: Files that stand for their folder, which is then the plugin's.
_STAND_FOR_FOLDER = ("handler", "main", "plugin", "attack", "__init__")
_MANIFESTS = ("plugin_manifest.json", "manifest.json", "plugin.json")
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile handler.

    Attributes:
        file: its module, relative to the corpus.
        function: what to call in it; empty: it is a script, and loading it is all.
        tries: what it is after.
        stopped_by: what must stop it.
        granted: what it is given beyond its workspace: nothing, `a port` or `a program`.
        excepted: the levels at which nothing stops it, and which say so.
        needs: what not every kernel has, and without which it succeeds nowhere.
        whole: the file is one attack.
        adapted: it is called otherwise than with what is planted as its only argument: see `adapter.py`.
        asynchronous: it is a coroutine function.
        own_folder: the folder that is the plugin's; empty: all of the corpus.
    """

    file: str
    function: str
    tries: str
    stopped_by: str
    granted: str = ""
    excepted: tuple[str, ...] = ()
    needs: str = ""
    whole: bool = False
    adapted: bool = False
    asynchronous: bool = False
    own_folder: str = ""

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
        return self.own_folder or (path.parent.as_posix() if own else "")


def attacks(corpus: Path = CORPUS) -> list[Attack]:
    """All attacks of a corpus, in the order of their files.

    Raises:
        ValueError: there are none.
    """
    found = [one for file in _files(corpus) for one in _of_file(file, corpus)]
    if not found:
        raise ValueError(f"{corpus} holds no attacks; tests/sandbox/attacks/README.md says what one looks like")
    return found


def others(corpus: Path) -> list[str]:
    """The Python files of a corpus that are no attacks: helpers, or something that was not understood."""
    return [file.relative_to(corpus).as_posix() for file in _files(corpus) if not _of_file(file, corpus)]


def _files(corpus: Path) -> Iterator[Path]:
    for file in sorted(corpus.rglob("*.py")):
        parts = file.relative_to(corpus).parts
        if file.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield file


def _of_file(path: Path, corpus: Path) -> list[Attack]:
    name = path.relative_to(corpus).as_posix()
    module, entry = _manifest(path.parent) if path.parent != corpus else ("", "")
    if module and module != path.name:
        return []  # another file is the plugin's module
    folder = Path(name).parent.as_posix() if module else ""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # what is no Python may be an attack on who reads it
        return [_described(name, "run", "", whole=True, own_folder=folder)]
    text = ast.get_docstring(tree) or ""
    if path.name.startswith(_ON_IMPORT):
        return [_described(name, "run", text, whole=True)]
    functions = [node for node in tree.body if isinstance(node, _FUNCTION)]
    ours = [one for one in functions if [argument.arg for argument in one.args.args] == ["planted"]]
    ours = [one for one in ours if not one.name.startswith("_")]
    if ours and not module:
        return [_described(name, one.name, ast.get_docstring(one) or "") for one in ours]
    return _foreign(name, tree, entry, folder, text)


def _foreign(name: str, tree: ast.Module, wanted: str, folder: str, text: str) -> list[Attack]:
    """A file that is one attack, if it is any."""
    names = (wanted,) if wanted else _ENTRIES
    functions = [node for node in tree.body if isinstance(node, _FUNCTION)]
    entry = next((one for each in names for one in functions if one.name == each), None)
    if entry is not None:
        return [
            _described(
                name,
                entry.name,
                ast.get_docstring(entry) or text,
                whole=True,
                adapted=not _takes_one(entry),
                asynchronous=isinstance(entry, ast.AsyncFunctionDef),
                own_folder=folder,
            )
        ]
    for one in (node for node in tree.body if isinstance(node, ast.ClassDef) and (not wanted or node.name == wanted)):
        methods = {node.name: node for node in one.body if isinstance(node, _FUNCTION)}
        if method := next((methods[each] for each in _ENTRIES if each in methods), None):
            asynchronous = isinstance(method, ast.AsyncFunctionDef)
            about = ast.get_docstring(method) or ast.get_docstring(one) or text
            called = f"{one.name}.{method.name}"
            more = {"adapted": True, "asynchronous": asynchronous}
            return [_described(name, called, about, whole=True, own_folder=folder, **more)]
    if _is_script(tree):
        return [_described(name, "", text, whole=True, adapted=True, own_folder=folder)]
    return []


def _takes_one(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    given = [*function.args.posonlyargs, *function.args.args]
    return 1 <= len(given) <= 1 + len(function.args.defaults) and not any(
        default is None for default in function.args.kw_defaults
    )


def _is_script(tree: ast.Module) -> bool:
    """Whether a file does something, and offers nothing."""
    defines = any(isinstance(node, _FUNCTION | ast.ClassDef) for node in tree.body)
    does = any(
        not isinstance(node, ast.Import | ast.ImportFrom)
        and any(isinstance(part, ast.Call | ast.While | ast.For) for part in ast.walk(node))
        for node in tree.body
    )
    return does and not defines


def _manifest(folder: Path) -> tuple[str, str]:
    """The module file and the entry point that a plugin's manifest names; nothing where there is none."""
    for name in _MANIFESTS:
        with suppress(OSError, ValueError, RecursionError):
            said = json.loads((folder / name).read_text("utf-8"))
            module = said.get("module") if isinstance(said, dict) else None
            if isinstance(module, str) and module:
                module = module if module.endswith(".py") else f"{module.replace('.', '/')}.py"
                entry = said.get("class_name") or said.get("entry_point") or said.get("handler")
                return (module, str(entry or "")) if (folder / module).is_file() else ("", "")
    return "", ""


def _described(
    file: str,
    function: str,
    text: str,
    *,
    whole: bool = False,
    adapted: bool = False,
    asynchronous: bool = False,
    own_folder: str = "",
) -> Attack:
    said = dict(line.split(":", 1) for line in text.splitlines()[1:] if ":" in line)
    words = {name.strip(): value.strip().rstrip(".") for name, value in said.items()}
    excepted = tuple(words["Not stopped"].replace(",", " ").split()) if "Not stopped" in words else ()
    tries = text.split("\n", 1)[0]
    stopped, granted, needs = (words.get(name, "") for name in ("Stopped by", "Granted", "Needs"))
    return Attack(file, function, tries, stopped, granted, excepted, needs, whole, adapted, asynchronous, own_folder)
