"""The examples run, and print what they say."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: Path, folder: Path) -> list[str]:
    """What a script prints, run from a folder that has nothing to do with ours, with warnings as errors."""
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_embedding(tmp_path: Path) -> None:
    lines = run(EXAMPLES / "embedding.py", tmp_path)
    # Handlers and taps run beside the program, so where their lines stand among the others is not fixed.
    assert "handled order_created {'id': 1}" in lines
    assert "tapped workflow_started" in lines
    assert "2 {'message': 'Hello World from plugin!'} {'label': 'question'}" in lines
    steps = [line.split()[1:] for line in lines if line.split()[1].startswith("step_")]
    assert steps == [[f"step_{what}", step] for step in ("classify", "note") for what in ("started", "completed")]
    assert not [*tmp_path.iterdir()], "an engine in memory writes nothing"


def test_embedding_takes_a_handful_of_statements() -> None:
    tree = ast.parse((EXAMPLES / "embedding.py").read_text(encoding="utf-8"))
    main = next(node for node in tree.body if isinstance(node, ast.AsyncFunctionDef))
    statements = [node for node in ast.walk(main) if isinstance(node, ast.stmt)]
    assert 10 <= len(statements) <= 15


def test_every_script_is_tested() -> None:
    tested = {"embedding.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_use_public_names_only(script: Path) -> None:
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eventcore"):
            assert node.module in ("eventcore", "eventcore.sdk")
