"""What `plugins validate --strict` asks of a plugin beyond what it needs to run: what others can expect of its author.

Reads the plugin's Python files as syntax; runs nothing of them.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from eventcore.kernel.errors import Problem
from eventcore.plugins.manifest.model import PluginManifest
from eventcore.plugins.plain_files import read_plain

_MOST_BYTES = 2 * 1024 * 1024
_MOST_FILES = 1000
_SKIPPED = frozenset({"__pycache__", ".git", ".venv", "node_modules", "tests", "test"})

#: Calls that a plugin has no need of, and what to do instead.
DANGEROUS: dict[str, str] = {
    "eval": "runs text as code; parse the text instead",
    "exec": "runs text as code",
    "compile": "makes code of text",
    "__import__": "imports by a computed name; write an import",
    "os.system": "starts a shell; the sandbox forbids it",
    "os.popen": "starts a shell; the sandbox forbids it",
    "subprocess.getoutput": "starts a shell; the sandbox forbids it",
    "subprocess.getstatusoutput": "starts a shell; the sandbox forbids it",
    "pickle.load": "runs what the data says; use JSON",
    "pickle.loads": "runs what the data says; use JSON",
    "marshal.loads": "reads untrusted code; use JSON",
    "shelve.open": "runs what the data says; use JSON",
    "yaml.load": "runs what the data says; use yaml.safe_load",
    "yaml.unsafe_load": "runs what the data says; use yaml.safe_load",
    "tempfile.mktemp": "names a file that another may make first; use tempfile.mkstemp",
}
#: Modules that reach past Python.
_LOW = frozenset({"ctypes", "cffi"})
_SECRET_NAME = re.compile(r"(?i)(pass(word|wd)?|secret|api_?key|token)$")
_SECRET_VALUE = re.compile(r"(sk-|ghp_|AKIA|xox[bap]-)[A-Za-z0-9_-]{12,}")


def strict(manifest: PluginManifest) -> list[Problem]:
    """What is missing, or should not be there."""
    folder = manifest.folder
    return [*_promised(manifest, folder), *_code(folder)]


def _promised(manifest: PluginManifest, folder: Path) -> Iterator[Problem]:
    def missing(key: str, text: str) -> Problem:
        return Problem(manifest.path, None, key, text)

    names = {name.lower() for name in os.listdir(folder)}
    if not any(name.partition(".")[0] == "readme" for name in names):
        yield missing("", "there is no README beside the manifest")
    if not _has_tests(folder):
        yield missing("", "there are no tests: a folder tests/ with files test_*.py")
    if manifest.license_assumed or not manifest.license:
        yield missing("license", "is not stated")
    if not manifest.description:
        yield missing("description", "is empty")


def _has_tests(folder: Path) -> bool:
    return any(any((folder / name).glob("**/test_*.py")) for name in ("tests", "test")) or any(folder.glob("test_*.py"))


def _code(folder: Path) -> Iterator[Problem]:
    count = 0
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            if name.endswith(".py") and not name.startswith("test_"):
                count += 1
                if count > _MOST_FILES:
                    yield Problem(
                        str(folder), None, "", f"has more than {_MOST_FILES:,} Python files; the rest is not read"
                    )
                    return
                yield from _file(Path(where, name))


def _file(path: Path) -> Iterator[Problem]:
    try:
        source = None if path.is_symlink() else read_plain(path.parent, path.name, _MOST_BYTES)
        if source is None or len(source) > _MOST_BYTES:
            yield Problem(str(path), None, "", "is a link, or too large to be read")
            return
        tree = ast.parse(source, str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield Problem(str(path), getattr(error, "lineno", None), "", f"cannot be read as Python: {error}")
        return
    yield from _hints(tree, path)
    names = _imported(tree)
    for node in ast.walk(tree):
        for text in _dangers(node, names):
            yield Problem(str(path), node.lineno, "", text)  # type: ignore[attr-defined]  # all that are found have one


def _hints(tree: ast.Module, path: Path) -> Iterator[Problem]:
    """Public functions at the top, and public methods of public classes."""
    tops = [node for node in tree.body if not getattr(node, "name", "_").startswith("_")]
    inner = [part for node in tops if isinstance(node, ast.ClassDef) for part in node.body]
    for node in (*tops, *inner):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if lacking := _unhinted(node, method=node in inner):
            yield Problem(str(path), node.lineno, node.name, f"has no type hint for {', '.join(lacking)}")


def _unhinted(node: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> list[str]:
    places = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    if method and not any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list):
        places = places[1:]
    lacking = [place.arg for place in places if place.annotation is None]
    return [*lacking, *(["its result"] if node.returns is None else [])]


def _imported(tree: ast.Module) -> dict[str, str]:
    """Name in the file -> what it stands for: `from os import system as run` makes `run` stand for `os.system`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dangers(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    match node:
        case ast.Import(names=aliases) if low := {alias.name.partition(".")[0] for alias in aliases} & _LOW:
            yield f"imports {', '.join(sorted(low))}, which reaches past Python"
        case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in _LOW:
            yield f"imports {module}, which reaches past Python"
        case ast.Call(func=function, keywords=keywords):
            called = _dotted(function, names)
            if (why := DANGEROUS.get(called)) is not None and not _safe_yaml(called, keywords):
                yield f"calls {called}, which {why}"
            if called.startswith("subprocess.") and any(_is_true(one, "shell") for one in keywords):
                yield f"calls {called} with shell=True; the sandbox forbids it"
        case ast.Assign(targets=targets, value=ast.Constant(value=str(value))):
            named = any(isinstance(one, ast.Name) and _SECRET_NAME.search(one.id) for one in targets)
            if _SECRET_VALUE.search(value) or (named and len(value) >= 12 and " " not in value):
                yield 'holds what looks like a secret; make it a setting with "secret": true'


def _safe_yaml(called: str, keywords: list[ast.keyword]) -> bool:
    loaders = [ast.unparse(one.value) for one in keywords if one.arg == "Loader"]
    return called == "yaml.load" and any("Safe" in loader for loader in loaders)


def _is_true(keyword: ast.keyword, name: str) -> bool:
    return keyword.arg == name and isinstance(keyword.value, ast.Constant) and keyword.value.value is True


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """What a called expression stands for: `os.system`; empty for what is no plain name."""
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=inner, attr=name):
            before = _dotted(inner, names)
            return f"{before}.{name}" if before else ""
        case _:
            return ""
