"""Runs a corpus of hostile handlers, and says what came of it. Ends with 1 if one of them got through.

python -m tests.sandbox.attacks [--corpus DIR] [--mode MODE]... [--naive] [--json FILE] [NAME...]
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.attacks.catalogue import CORPUS, Attack, attacks
from tests.sandbox.attacks.plant import VARIABLE
from tests.sandbox.tier import MODES, as_user

NAIVE = tuple(f"{who}-{how}" for how in ("spawn", "trusting", "inline") for who in ("root", "nobody"))
#: Where attacks succeed, they do so among themselves: these hold the rest of the machine apart.
_APART = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--ipc", "--uts", "--kill-child"]


def command(corpus: Path, mode: str, names: Iterable[str]) -> list[str]:
    """The command that runs attacks in a mode.

    Raises:
        pytest.skip.Exception: this machine cannot; the message says what is missing.
    """
    who, level = mode.split("-")
    found = as_user(who, ["-m", "tests.sandbox.attacks.run", str(corpus), level, *names])
    if mode not in NAIVE:
        return found
    apart = _APART if os.geteuid() == 0 else [*_APART, "--user", "--map-current-user"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"needs namespaces to hold attacks apart that succeed: {' '.join(apart)} fails here")
    return [*apart, *found]


def outcomes(corpus: Path, mode: str, names: Iterable[str] = (), timeout: float = 600) -> Iterator[dict[str, Any]]:
    """Run attacks in a mode; their outcomes as they come."""
    left = [one.name for one in attacks(corpus) if not names or one.name in names]
    while left:
        for one in _run(corpus, mode, [*left], timeout):
            left.remove(one["attack"])
            yield one


def _run(corpus: Path, mode: str, names: list[str], timeout: float) -> Iterator[dict[str, Any]]:
    """Run them in one process. One that takes its host along has got through; who comes after it is not run."""
    root = Path(__file__).resolve().parents[3]
    done = 0
    with subprocess.Popen(
        command(corpus.resolve(), mode, names),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
        errors="backslashreplace",
        env=dict(os.environ, **{VARIABLE: "secret " + secrets.token_hex(16)}),
    ) as process:
        try:
            said, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            said, errors = process.communicate()
    for line in said.splitlines():
        done += 1
        yield json.loads(line)
    if process.returncode and done == 0 and "Traceback" in errors:
        raise RuntimeError(f"the run of {mode} ended with {process.returncode}: {errors[-2000:]}")
    if done < len(names):
        why = f"its host ended with {process.returncode}: {errors[-300:]}"
        yield {
            "attack": names[done],
            "mode": mode.split("-")[1],
            "outcome": "through",
            "how": "no answer",
            "value": None,
            "harm": [why],
            "stall": 0.0,
            "growth": 0.0,
            "seconds": 0.0,
        }


def excused(attack: Attack, outcome: dict[str, Any]) -> bool:
    """Whether an attack says of itself that nothing stops it at this level."""
    return outcome["mode"] in attack.excepted


def main() -> int:
    given = _arguments()
    for name, value in (("TIME", given.time), ("STALL", given.stall)):
        os.environ.update({f"EVENTCORE_ATTACK_{name}": value} if value else {})
    chosen = {attack.name: attack for attack in attacks(given.corpus) if not given.names or attack.name in given.names}
    kept: list[dict[str, Any]] = []
    bad: list[str] = []
    for mode in given.mode or (NAIVE if given.naive else MODES):
        try:
            found = list(outcomes(given.corpus, mode, chosen if given.names else ()))
        except pytest.skip.Exception as reason:
            print(f"{mode:16} not run: {reason}")
            continue
        kept += [one | {"mode": mode} for one in found]
        count = Counter(one["outcome"] for one in found)
        unrun = [
            one["attack"] for one in found if one["how"].startswith("not loaded: ") and one["outcome"] == "blocked"
        ]
        told = f"; {len(unrun)} could not be loaded: {', '.join(unrun)[:100]}" if unrun else ""
        print(f"{mode:16} {count['blocked']} of {len(found)} blocked{told}")
        through = [one for one in found if one["outcome"] == "through"]
        for one in [] if mode in NAIVE else through:
            allowed = excused(chosen[one["attack"]], one)
            print(f"    {'excepted' if allowed else 'THROUGH '} {one['attack']}: {one['how']} {one['harm']}"[:240])
            bad += [] if allowed else [one["attack"]]
    if given.json:
        given.json.write_text("".join(json.dumps(one) + "\n" for one in kept))
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sandbox.attacks", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="a folder of handlers; see README.md")
    parser.add_argument("--mode", action="append", choices=[*MODES, *NAIVE], help="may be given several times")
    parser.add_argument("--naive", action="store_true", help="without the sandbox, to see that the attacks are real")
    parser.add_argument("--time", help="seconds that loading and the call of an attack may take each; 1")
    parser.add_argument("--stall", help="seconds that the host's loop may be held up; 0.25")
    parser.add_argument("--json", type=Path, help="write the outcomes there, an object a line")
    parser.add_argument("names", nargs="*", help="attacks to run; all of them by default")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
