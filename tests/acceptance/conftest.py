"""Homes, plugins and the command line, as a user has them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


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
            timeout=60,
        )

    def json(self, *words: str, stdin: str = "") -> Any:
        """The JSON that `eventcore WORDS --json` prints."""
        done = self.run(*words, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


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
