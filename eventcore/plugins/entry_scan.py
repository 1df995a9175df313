"""What a plugin's entry file seems to handle, found without running it."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

from eventcore.hooks.specs import HOOKS, likely_slip
from eventcore.kernel.errors import Problem
from eventcore.plugins.manifest.model import PluginManifest
from eventcore.plugins.plain_files import read_plain

#: A larger entry file is not looked through: parsing takes some 100 times its size in memory.
_MOST_BYTES = 2 * 1024 * 1024


def scan_entry(manifest: PluginManifest) -> list[Problem]:
    """Problems of the entry file that its syntax shows: that it has none; functions `on_...` that look like slips;
    hooks that the manifest lists and the file has no function for, and the other way round."""
    folder = os.path.dirname(manifest.path) or "."
    file = os.path.join(folder, manifest.entry_file)
    try:
        source = read_plain(folder, manifest.entry_file, _MOST_BYTES)
        if len(source) > _MOST_BYTES:
            return []
        tree = ast.parse(source, file)
    except OSError:
        return []  # `check_folder` says that there is none
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        return [Problem(file, line, "", f"is not Python: {text}")]
    return [*_slips(tree, file), *_hooks(manifest, tree, file)]


def _slips(tree: ast.Module, file: str) -> Iterator[Problem]:
    for node in _functions(tree):
        if node.name.startswith("on_") and (meant := likely_slip(node.name)):
            yield Problem(file, node.lineno, node.name, f"did you mean {meant!r}?", warning=True)


def _functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def _hooks(manifest: PluginManifest, tree: ast.Module, file: str) -> Iterator[Problem]:
    """What the list of hooks and the file say of each other. A name that the file makes in another way than by `def`
    (an import, an assignment, a decorator that names the hook) counts as there: only running it would tell."""
    if manifest.hooks is None:
        return
    there, sure = _names(tree)
    marked = any(node.decorator_list for node in _functions(tree))
    for hook in manifest.hooks:
        if sure and hook not in there and not (marked and hook != "on_command"):
            yield Problem(manifest.path, None, "hooks", f"lists {hook}, but {manifest.entry_file} has no such function")
    for node in _functions(tree):
        if node.name in {*HOOKS, "on_command"} and node.name not in manifest.hooks and not node.decorator_list:
            text = "is not listed under hooks of the manifest, so it is not called"
            yield Problem(file, node.lineno, node.name, text, warning=True)


def _names(tree: ast.Module) -> tuple[set[str], bool]:
    """The names at the top of a file, and whether these are all."""
    found: set[str] = set()
    sure = True
    for node in _at_the_top(tree.body):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.ImportFrom(names=names) | ast.Import(names=names):
                found |= {alias.asname or alias.name for alias in names}
                sure = sure and not any(alias.name == "*" for alias in names)
            case ast.Assign() | ast.AnnAssign():
                found |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            case ast.Expr():
                sure = sure and not isinstance(node.value, ast.Call)  # it may set what it likes
    return found, sure


def _at_the_top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the file is imported, in order; those of classes and functions do not make names."""
    for node in body:
        yield node
        for block in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = getattr(node, block, [])
                yield from _at_the_top([part for one in inner for part in getattr(one, "body", [one])])
