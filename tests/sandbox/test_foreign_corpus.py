"""The runner with corpora that were not written for it, and with attacks that take their host along."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.attacks import __main__ as runner
from tests.sandbox.attacks.catalogue import attacks, others

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
    "polite.py": "def run(params):\n    return {'blocked': True, 'why': 'EPERM'}\n",
    "two.py": "def run(params, context):\n    return open(params['secret']).read()\n",
    "none.py": "import json\ndef main():\n    return open('/etc/passwd').read()\n",
    "keys.py": "async def attack(*, secret, **more):\n    return open(secret).read()\n",
    "all_keys.py": "def exploit(**planted):\n    return open(planted['secret']).read()\n",
    "a class.py": "class Evil:\n    async def execute(self, p):\n        return open(p['secret']).read()\n",
    "needy.py": "class Evil:\n    def __init__(self, c):\n        self.c = c\n"
    "    def run(self, p):\n        return open(p['secret']).read()\n",
    "named/plugin_manifest.json": '{"name": "named", "module": "evil", "entry_point": "go"}',
    "named/evil.py": "def go(p):\n    return open(p['secret']).read()\n",
    "named/handler.py": "def run(p):\n    return None\n",
    "script.py": "import json, os\n"
    "p = json.load(open(os.path.dirname(__file__) + '/planted.json'))\n"
    "open(p['workspace'] + '/loot', 'w').write('x')\nos.symlink(p['secret'], p['workspace'] + '/there')\n",
    "printed.py": "def run(params):\n    print(open(params['secret']).read())\n",
    "missing.py": "import no_such_package_of_ours\ndef run(params):\n    return 1\n",
    "refused_early.py": "import os\nos.fork()\ndef run(params):\n    return 1\n",
}
#: Whoever walks through his results stumbles: over paths that are too long, and links to what is no name.
FILES["too_long.py"] = """import os
def run(params):
    os.chdir(params['workspace'])
    os.symlink('x' * 4000, 'link')
    for _ in range(40):
        os.mkdir('d' * 255)
        os.chdir('d' * 255)
"""
NAMES = {
    "single",
    "too_long",
    "later",
    "modest",
    "folder",
    "deep/er.steal",
    "no_python",
    "refused",
    "polite",
    "two",
    "none",
    "keys",
}
NAMES |= {"all_keys", "a class", "needy", "named", "script", "printed", "missing", "refused_early"}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "corpus"


def test_files_and_folders_of_any_shape_are_found(corpus: Path) -> None:
    assert {one.name for one in attacks(corpus)} == NAMES
    assert others(corpus) == ["folder/helper.py", "named/handler.py", "tool.py"]
    with pytest.raises(ValueError, match=r"holds no attacks; tests/sandbox/attacks/README\.md"):
        attacks(corpus / "nothing")


def test_they_are_run_and_judged_by_what_they_did(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def through(mode: str) -> set[str]:
        found = list(runner.outcomes(corpus, mode))
        assert {one["attack"] for one in found} == NAMES
        return {one["attack"] for one in found if one["outcome"] == "through"}

    succeed = {"single", "modest", "folder", "deep/er.steal", "two", "none", "keys", "all_keys", "a class", "needy"}
    monkeypatch.setenv("EVENTCORE_ATTACK_TIME", "4")  # so that the slowest machine lets them succeed
    assert through("root-spawn") == succeed | {"named", "script", "printed", "refused_early"}
    monkeypatch.delenv("EVENTCORE_ATTACK_TIME")
    assert through("root-full") == set()


def test_what_cannot_be_loaded_is_no_try_and_changes_the_exit_code(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EVENTCORE_ATTACK_TIME", "10")  # none of these takes any; too late would be another outcome

    def ran(*names: str) -> int:
        monkeypatch.setattr(sys, "argv", ["attacks", "--corpus", str(corpus), "--mode", "root-full", *names])
        return runner.main()

    assert ran("missing", "no_python", "refused_early", "two") == 3
    said = capsys.readouterr().out
    assert "2 of 4 blocked" in said
    assert "NO TRY   missing: not loaded: ModuleNotFoundError" in said
    assert "NO TRY   no_python: not loaded: SyntaxError" in said
    assert "4 runs: 2 blocked, 0 through, 2 could not be loaded" in said
    assert ran("refused_early", "two") == 0
    assert ran("no_such_attack") == 2
    assert "there is no attack no_such_attack" in capsys.readouterr().err


def test_links_in_a_corpus_are_not_followed(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who copies a corpus with the rights of root must not copy what it points to, or change its mode."""
    secret = corpus.parent / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    (corpus / "link.txt").symlink_to(secret)
    (corpus / "peek.py").write_text("def run(p):\n    import os\n    return open(__file__[:-7] + 'link.txt').read()\n")
    modes = [f"--mode={who}-full" for who in ("root", "nobody")]  # who may not even read the folder gets a copy
    monkeypatch.setattr(sys, "argv", ["attacks", "--corpus", str(corpus), *modes, "peek"])
    assert runner.main() == 0
    assert secret.stat().st_mode & 0o777 == 0o600


def test_one_that_hangs_its_host_is_ended_and_the_run_goes_on(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import json, sys, time\n"
        "if sys.argv[1] == sys.argv[2] or len(sys.argv) == 3: time.sleep(60)\n"
        "print('a word in between', flush=True)\n"
        "print(json.dumps({'attack': sys.argv[2], 'outcome': 'blocked'}), flush=True)\n"
    )
    first = attacks(corpus)[0].name
    monkeypatch.setattr(
        runner, "command", lambda corpus, mode, names: [sys.executable, "-c", script, first, *names[:2]]
    )
    chosen = [one.name for one in attacks(corpus)[:3]]
    run = runner._run

    def patient(corpus: Path, mode: str, names: list[str], timeout: float) -> Iterator[runner.Outcome]:
        """Only with the one that does not hang: how long it takes to begin says nothing."""
        return run(corpus, mode, names, 30 if names[0] == chosen[1] else timeout)

    monkeypatch.setattr(runner, "_run", patient)
    found = list(runner.outcomes(corpus, "root-full", chosen, timeout=0.5))
    assert [one["attack"] for one in found] == chosen
    assert "said nothing for 0.5 s" in found[0]["harm"][0]


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
    assert [one["outcome"] for one in found] == (["blocked", "through"] * len(NAMES))[: len(NAMES)]
    assert "its host ended with 9" in json.dumps(found[1])
