"""The real public inputs in full: a thousand commits, and every example of GitHub's webhooks.

Run by `make prove`. The webhook examples come from the npm registry (`@octokit/webhooks-examples`); nothing of them is
kept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import InvalidPayload
from eventcore.kernel.event import MAX_PAYLOAD

pytestmark = [pytest.mark.prove, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PACKAGE = "@octokit/webhooks-examples"
SETTINGS = '[plugins]\nenabled = ["text-processor"]\n\n[workflows]\nenabled = ["commit_digest"]\n'
COMMITS = 1000


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "eventcore.toml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path / "home"


def test_a_thousand_commits(home: Path) -> None:
    """This repository's log, again and again until there are a thousand lines, as one pipe."""
    log = subprocess.run(["git", "log", "--format=%s"], cwd=ROOT, capture_output=True).stdout.splitlines()
    known = log or [b"a commit of a checkout without history"]
    lines = [known[number % len(known)] + f" ({number})".encode() for number in range(COMMITS)]
    env = {**os.environ, "EVENTCORE_HOME": str(home)}

    def eventcore(*arguments: str, stdin: bytes = b"") -> Any:
        command = [sys.executable, "-m", "eventcore", *arguments, "--json"]
        done = subprocess.run(command, input=stdin, capture_output=True, env=env, cwd=home, timeout=400)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    receipt = eventcore("emit", "commit_pushed", "--from", "-", "--timeout", "300", stdin=b"\n".join(lines))
    assert (receipt["emitted"], receipt["failed"]) == (COMMITS, 0)
    runs = eventcore("runs", "list", "--slug", "commit_digest", "--limit", "10000")
    assert [run["inputs"]["text"].encode() for run in reversed(runs)] == lines
    assert {run["status"] for run in runs} == {"completed"}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Any]]:
    """(event name, payload) of every example in the package."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed; run `make system` as root, then `make prove`")
    folder = tmp_path_factory.mktemp("npm")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), PACKAGE]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"{PACKAGE} could not be installed (the registry is needed): {done.stderr.strip()[-200:]}")
    found = list(payloads(folder / "node_modules" / PACKAGE))
    assert len(found) > 100
    return found


def payloads(package: Path) -> Iterator[tuple[str, Any]]:
    """The examples: the index is a list of {name, examples}; older releases have a folder of files for each name."""
    for path in sorted(package.rglob("*.json")):
        if path.name == "package.json":
            continue
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, list):
            for event in value:
                for example in event["examples"]:
                    yield event["name"], example
        elif path.name.endswith(".payload.json"):
            yield path.parent.name, value


def event_name(name: str) -> str:
    """`github_<name>`, with what the grammar of names does not have replaced."""
    return "github_" + re.sub(r"[^a-z0-9_]", "_", name.lower())


def canonical(value: Any) -> bytes:
    """JSON text that two values share only if they are equal, order of keys and kind of number included."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def test_webhook_payloads_come_back_as_they_were(examples: list[tuple[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").write_text("", encoding="utf-8")
    fitting = [(name, value) for name, value in examples if len(canonical(value)) <= MAX_PAYLOAD]
    sent: dict[str, bytes] = {}

    async def emit_all() -> None:
        async with EventCore(tmp_path) as core:
            for name, value in fitting:
                receipt = await core.bus.emit(event_name(name), value, source="/github")
                sent[receipt.id] = canonical(value)

    async def read_all() -> dict[str, bytes]:
        # A new engine: what comes back is what was on the disk.
        async with EventCore(tmp_path) as core:
            return {event.id: canonical(event.data) async for event in core.history.query(type="github_*")}

    anyio.run(emit_all)
    assert len(sent) == len(fitting)
    assert anyio.run(read_all) == sent


def test_payloads_that_are_too_large_are_refused_clearly(examples: list[tuple[str, Any]]) -> None:
    """Those of the package, and one made of all its examples, which certainly is."""
    large = [(name, value) for name, value in examples if len(canonical(value)) > MAX_PAYLOAD]
    large.append(("everything", [value for _, value in examples]))

    async def try_all() -> None:
        async with EventCore() as core:
            for name, value in large:
                with pytest.raises(InvalidPayload, match=r"256 KiB|262,?144"):
                    await core.bus.emit(event_name(name), value)
            assert [event async for event in core.history.query(type="github_*")] == []

    anyio.run(try_all)
