"""Input that nobody here wrote: the history of a git repository, piped in; one run for each commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = '[plugins]\nenabled = ["text-processor"]\n\n[workflows]\nenabled = ["commit_digest"]\n'
#: At most so many commits; `make prove` takes a thousand.
MOST = 40


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the plugin and the workflow of the catalogue that this needs."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "eventcore.toml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path / "home"


def eventcore(home: Path, *arguments: str, stdin: bytes = b"") -> Any:
    """`eventcore ... --json` on that home; what it printed."""
    env = {**os.environ, "EVENTCORE_HOME": str(home)}
    command = [sys.executable, "-m", "eventcore", *arguments, "--json"]
    done = subprocess.run(command, input=stdin, capture_output=True, env=env, cwd=home, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def git(folder: Path, *arguments: str) -> bytes:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, check=True).stdout


@pytest.fixture
def commits(tmp_path: Path) -> bytes:
    """`git log --format=%s`: of this repository where it is one with enough history, else of one made on the spot."""
    try:
        log = git(ROOT, "log", f"--max-count={MOST}", "--format=%s")
    except (OSError, subprocess.CalledProcessError):
        log = b""
    return log if log.count(b"\n") >= 20 else git(made_repository(tmp_path / "repository"), "log", "--format=%s")


def made_repository(folder: Path) -> Path:
    folder.mkdir()
    try:
        git(folder, "init", "--quiet")
    except OSError:
        pytest.skip("git is not installed; run `make system` as root")
    for number in range(30):
        subject = f"Übersetzung {number}: {{{{ not a template }}}}, \"quoted\" & 'so on' " + "word " * number
        git(folder, "commit", "--quiet", "--allow-empty", "--message", subject)
    return folder


def test_every_commit_starts_a_run(home: Path, commits: bytes) -> None:
    subjects = commits.decode().splitlines()
    receipt = eventcore(home, "emit", "commit_pushed", "--from", "-", stdin=commits)
    assert (receipt["emitted"], receipt["failed"]) == (len(subjects), 0)

    runs = eventcore(home, "runs", "list", "--slug", "commit_digest", "--limit", "1000")
    assert [run["status"] for run in runs] == ["completed"] * len(subjects)
    # Runs come newest first, commits in their order.
    assert [run["inputs"]["text"] for run in reversed(runs)] == subjects
    assert all(run["output"]["characters"] == len(run["inputs"]["text"]) for run in runs)

    pushed = eventcore(home, "events", "list", "--type", "commit_pushed", "--limit", "1000")
    assert [event["data"] for event in pushed] == [{"text": subject} for subject in subjects]
    assert Counter(run["causation_id"] for run in runs) == Counter(event["id"] for event in pushed)
    measured = eventcore(home, "events", "list", "--type", "commit_measured", "--limit", "1000")
    assert Counter(event["data"]["text"] for event in measured) == Counter(subjects)
