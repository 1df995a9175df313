"""The runner with corpora that were not written for it, and with attacks that take their host along."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.sandbox.attacks import __main__ as runner
from tests.sandbox.attacks.catalogue import attacks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there")

FILES = {
    "single.py": "def run(params):\n    return open(params['secret']).read()\n",
    "later.py": "async def attack(what, more=None):\n    import asyncio\n    await asyncio.sleep(60)\n",
    "modest.py": "def handler(p):\n    return {'success': False, 'loot': open(p['outside'] + '/open').read()}\n",
    "folder/handler.py": "import helper\ndef run(params):\n    helper.go(params)\n",
    "folder/helper.py": "import os\ndef go(p):\n    os.symlink(p['secret'], p['workspace'] + '/result.txt')\n",
    "deep/er.py": "def steal(planted):\n    return open('/etc/passwd').read()\n",
    "no_python.py": "def run(params:\n",
    "tool.py": "def helper(a, b):\n    return a\n",
    "refused.py": "def run(params):\n    return False\n",
}
NAMES = {"single", "later", "modest", "folder", "deep/er.steal", "no_python", "refused"}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "corpus"


def test_files_and_folders_of_any_shape_are_found(corpus: Path) -> None:
    assert {one.name for one in attacks(corpus)} == NAMES
    with pytest.raises(ValueError, match=r"holds no attacks; tests/sandbox/attacks/README\.md"):
        attacks(corpus / "nothing")


def test_they_are_run_and_judged_by_what_they_did(corpus: Path) -> None:
    def through(mode: str) -> set[str]:
        found = list(runner.outcomes(corpus, mode))
        assert {one["attack"] for one in found} == NAMES
        return {one["attack"] for one in found if one["outcome"] == "through"}

    assert through("root-spawn") == {"single", "modest", "folder", "deep/er.steal"}
    assert through("root-full") == set()


def test_an_attack_that_takes_its_host_along_has_got_through(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each run the first attack is blocked and the second one ends the host."""
    script = (
        "import json, os, sys\n"
        "print(json.dumps({'attack': sys.argv[1], 'outcome': 'blocked'}), flush=True)\n"
        "os._exit(9 if sys.argv[2:] else 0)\n"
    )
    monkeypatch.setattr(runner, "command", lambda corpus, mode, names: [sys.executable, "-c", script, *names])
    found = list(runner.outcomes(corpus, "root-full"))
    assert [one["attack"] for one in found] == [one.name for one in attacks(corpus)]
    assert [one["outcome"] for one in found] == ["blocked", "through"] * 3 + ["blocked"]
    assert "its host ended with 9" in json.dumps(found[1])
