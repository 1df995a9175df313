"""Ordinary plugins run unchanged, in every mode."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.tier import HERE, MODES, as_user

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there")
CORPUS = HERE / "benign"


def expected() -> dict[str, Any]:
    found = {}
    for file in sorted(CORPUS.glob("[a-z]*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXPECTED":
                found[file.stem] = ast.literal_eval(node.value)
    return found


def test_there_are_enough_of_them() -> None:
    assert len(expected()) >= 25


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_ordinary_plugins_run(mode: str, tmp_path: Path) -> None:
    who, level = mode.split("-")
    plugins, workspace = tmp_path / "plugins", tmp_path / "workspace"
    shutil.copytree(CORPUS, plugins, ignore=shutil.ignore_patterns("__pycache__"))
    workspace.mkdir(mode=0o777)
    workspace.chmod(0o777)
    for file in plugins.iterdir():
        file.chmod(0o644)
    for place in (plugins, tmp_path, *tmp_path.parents):
        if place.is_relative_to("/tmp") and place != Path("/tmp") and os.geteuid() == 0:
            place.chmod(place.stat().st_mode | 0o055)
    command = as_user(who, [str(HERE / "benign_driver.py"), str(plugins), level, str(workspace)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd="/", check=False)
    said = {one["plugin"]: one["said"] for one in map(json.loads, done.stdout.splitlines())}
    wanted = expected()
    if (numpy := said.get("arrays")) and "No module named 'numpy'" in str(numpy):
        del said["arrays"], wanted["arrays"]  # not among what the tests install
    assert said == wanted, done.stderr[-2000:]
