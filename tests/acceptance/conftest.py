"""Homes, plugins and the command line, as a user has them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from eventcore.cli.root import root


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class HomeFolder:
    """A temporary home, and the command line in it."""

    root: Path

    def settings(self, text: str) -> None:
        (self.root / "eventcore.toml").write_text(text)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def plugin(self, slug: str, code: str, *, folder: str = "", **manifest: Any) -> Path:
        """A plugin with a JSON manifest of the specification's flavour, in `plugins/FOLDER/SLUG/`."""
        body = {
            "name": slug,
            "version": "1.0.0",
            "plugin_api_version": "1.1",
            "module": "handler",
            "required_roles": [],
        }
        where = f"plugins/{folder}/{slug}" if folder else f"plugins/{slug}"
        self.write(f"{where}/plugin_manifest.json", json.dumps({**body, **manifest}, indent=2))
        return self.write(f"{where}/handler.py", code)

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`eventcore WORDS` in the home's folder."""
        return subprocess.run(
            [sys.executable, "-m", "eventcore", *words],
            cwd=self.root,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def json(self, *words: str, stdin: str = "") -> Any:
        """The JSON that `eventcore WORDS --json` prints."""
        done = self.run(*words, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


class QuickHome(HomeFolder):
    """Runs the command line in the tests' own process: an interpreter's start is spared, the engine is opened anew."""

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(root, words, input=stdin, prog_name="eventcore")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QuickHome]:
    """A home whose commands are carried out in this process."""
    folder = QuickHome(tmp_path / "home")
    folder.root.mkdir()
    folder.settings("")
    monkeypatch.chdir(folder.root)
    logger = logging.getLogger("eventcore")
    handlers, propagates = list(logger.handlers), logger.propagate
    yield folder
    logger.handlers, logger.propagate = handlers, propagates


@pytest.fixture
def home(tmp_path: Path) -> HomeFolder:
    folder = HomeFolder(tmp_path / "home")
    folder.root.mkdir()
    folder.settings("")
    return folder


@pytest.fixture
def make_home(tmp_path: Path) -> Callable[[str], HomeFolder]:
    def make(settings: str) -> HomeFolder:
        folder = HomeFolder(tmp_path / "home")
        folder.root.mkdir()
        folder.settings(settings)
        return folder

    return make
