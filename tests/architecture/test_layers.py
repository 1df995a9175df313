"""Arrows point down: who may import whom, checked by import-linter and by our own reading of the source."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

#: Function-local imports outside `cli`, which has them for its start-up time. (file, imported module) -> why.
LOCAL_IMPORTS = {
    ("eventcore/__init__.py", "importlib"): "only needed when a public name is used for the first time",
    ("eventcore/kernel/cron.py", "croniter"): "starts a process as it is imported",
    ("eventcore/home/layout.py", "eventcore.home.settings_file"): "needs pydantic; finding a home must not",
    ("eventcore/observe/metrics.py", "prometheus_client"): "slow to import, and the command line makes no metrics",
    ("eventcore/testing/__init__.py", "importlib"): "only needed when a public name is used for the first time",
    ("eventcore/testing/pytest_plugin.py", "eventcore.testing.homes"): "pytest loads it in every project that has us",
    ("eventcore/testing/pytest_plugin.py", "asyncio"): "as above",
    ("eventcore/testing/pytest_plugin.py", "eventcore.testing.endpoint"): "as above",
    ("eventcore/testing/pytest_plugin.py", "eventcore.testing.plugin_contexts"): "as above",
    ("eventcore/testing/pytest_plugin.py", "eventcore.app"): "pytest loads it in every project that has us",
    ("eventcore/plugins/sandbox/worker/prompt.py", "jinja2"): "the worker itself needs the standard library alone",
    ("eventcore/plugins/sandbox/worker/prompt.py", "jinja2.sandbox"): "as above; few plugins have a prompt",
    ("eventcore/app/outside.py", "eventcore.plugins.outside.broker"): "an HTTP client is slow to import",
    ("eventcore/plugins/sandbox/container/launcher.py", "eventcore.plugins.sandbox.container.engine"): "the same",
    ("eventcore/plugins/sandbox/container/inside.py", "eventcore.plugins.sandbox.worker.main"): "sys.path is set above",
    ("eventcore/plugins/sandbox/worker/boot.py", "eventcore.plugins.sandbox.worker.main"): "sys.path is set just above",
    ("eventcore/plugins/sandbox/zygote/boot.py", "eventcore.plugins.sandbox.zygote.main"): "sys.path is set just above",
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """`lint-imports` on the package in `folder`, by its pyproject.toml."""
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as go; go()"
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the package and its rules, to break."""
    shutil.copytree(root / "eventcore", tmp_path / "eventcore", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.timeout(300)
def test_the_layers_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("plugins/lifecycle.py", "from eventcore.workflows import runner", "eventcore.plugins.lifecycle -> "),
        ("kernel/names.py", "import blinker", "eventcore.kernel.names -> blinker"),
    ],
    ids=["a sibling", "blinker outside the bus"],
)
def test_a_planted_violation_is_found(copy: Path, file: str, line: str, says: str) -> None:
    with (copy / "eventcore" / file).open("a", encoding="utf-8") as source:
        source.write(f"\n\ndef _planted():\n    {line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert says in done.stdout


# -- our own reading --------------------------------------------------------------------------------------------------


def sources(root: Path) -> dict[str, ast.Module]:
    """Module name -> its syntax tree, of the whole package."""
    found = {}
    for path in sorted((root / "eventcore").rglob("*.py")):
        relative = path.relative_to(root)
        if "_catalogue" not in relative.parts:
            parts = relative.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imported(tree: ast.AST) -> set[str]:
    """Every module that an import names anywhere in `tree`; `from a import b` counts as `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def edges(modules: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, also inside functions and for type checking."""
    graph = {}
    for name, tree in modules.items():
        mine = {target for target in imported(tree) if target in modules} - {name}
        # `from package import module` needs the module; the package's own __init__ is meant only if it has the name.
        deeper = {target.rpartition(".")[0] for target in mine}
        graph[name] = {target for target in mine if not (target in deeper and _is_package(target, modules))}
    return graph


def _is_package(name: str, modules: dict[str, ast.Module]) -> bool:
    return any(other.startswith(f"{name}.") for other in modules)


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def test_no_import_cycles_even_inside_functions(root: Path) -> None:
    graph = edges(sources(root))
    # The lazy public names point up by design; nothing of ours may import the bare package to get at them.
    graph["eventcore"] = set()
    assert find_cycle(graph) is None


def test_a_planted_cycle_is_found(root: Path) -> None:
    modules = sources(root)
    modules["eventcore.kernel.names"].body += ast.parse("def late():\n    import eventcore.bus.bus\n").body
    assert find_cycle(edges(modules)) is not None


def local_imports(tree: ast.Module) -> set[str]:
    """Modules imported inside functions."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import):
                    found |= {alias.name for alias in inner.names}
                elif isinstance(inner, ast.ImportFrom):
                    found.add(inner.module or "")
    return found


def test_no_imports_inside_functions_but_the_listed(root: Path) -> None:
    found = set()
    for path in sorted((root / "eventcore").rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[1] != "cli" and "_catalogue" not in relative.parts:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {(relative.as_posix(), module) for module in local_imports(tree)}
    assert found <= LOCAL_IMPORTS.keys(), "import at the top, or list it with a reason"


def test_blinker_is_imported_only_by_the_bus(root: Path) -> None:
    users = {name for name, tree in sources(root).items() if any(m.split(".")[0] == "blinker" for m in imported(tree))}
    assert users
    assert all(name.startswith("eventcore.bus.") for name in users)
