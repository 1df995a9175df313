"""What EventCore gives its users to test with: the pytest plugin, and the killing of programs at fault points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eventcore.testing.faults import fault_environment, run_until_killed

PROGRAM = """
import anyio
from eventcore import EventCore

async def main():
    async with EventCore():
        pass

anyio.run(main)
"""


def test_fixtures_in_a_project_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import os, pytest\n"
        "def test_home(eventcore_home):\n"
        "    assert (eventcore_home / 'eventcore.toml').is_file()\n"
        "    assert os.environ['EVENTCORE_HOME'] == str(eventcore_home)\n"
        "@pytest.mark.anyio\n"
        "@pytest.mark.parametrize('anyio_backend', ['asyncio'])\n"
        "async def test_engine(eventcore):\n"
        "    assert (await eventcore.bus.emit('order_created', {'id': 1})).position\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import eventcore.testing.pytest_plugin;"
        "print({name.split('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "{'eventcore'}"


def test_a_program_is_killed_where_it_should_be() -> None:
    run_until_killed([sys.executable, "-c", PROGRAM], "store.after_commit")
    with pytest.raises(AssertionError, match="was not reached 999 times"):
        run_until_killed([sys.executable, "-c", PROGRAM], "store.after_commit", 999)


@pytest.mark.parametrize(("point", "hit"), [("store.nowhere", 1), ("store.after_commit", 0)])
def test_a_fault_that_cannot_be_is_refused(point: str, hit: Any) -> None:
    with pytest.raises(ValueError, match=r"no such fault point|counted from 1"):
        fault_environment(point, hit)
