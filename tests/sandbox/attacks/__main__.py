"""Runs a corpus of hostile handlers, and says what came of it. Ends with 1 if one of them got through.

`python -m tests.sandbox.attacks --help` names the modes, the outcomes and the exit codes.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.sandbox.attacks.catalogue import CORPUS, Attack, attacks, others
from tests.sandbox.attacks.plant import VARIABLE
from tests.sandbox.attacks.run import NOT_LOADED
from tests.sandbox.tier import MODES, as_user, reachable

Outcome: TypeAlias = dict[str, Any]
NAIVE = tuple(f"{who}-{how}" for how in ("spawn", "trusting", "inline") for who in ("root", "nobody"))
#: How long a host may say nothing, besides the time of its attacks. Seconds.
_SILENCE = 30.0
#: What an attack ends with that goes wrong by itself.
_OWN_ERRORS = tuple(
    f"{name}:"
    for name in "NameError UnboundLocalError AttributeError TypeError KeyError IndexError "
    "ImportError ModuleNotFoundError".split()
)
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


def outcomes(corpus: Path, mode: str, names: Iterable[str] = (), timeout: float | None = None) -> Iterator[Outcome]:
    """Run attacks in a mode; their outcomes as they come.

    Args:
        timeout: seconds that one of them may take before its host is taken for hung, and ended.

    Raises:
        RuntimeError: not one could be run; the message says why.
    """
    most = timeout or _SILENCE + 6 * float(os.environ.get("EVENTCORE_ATTACK_TIME") or 1)
    left = [one.name for one in attacks(corpus) if not names or one.name in names]
    while left:
        for one in _run(corpus, mode, [*left], most):
            left.remove(one["attack"])
            yield one


def _run(corpus: Path, mode: str, names: list[str], timeout: float) -> Iterator[Outcome]:
    """Run them in one process. One that takes its host along has got through; who comes after it is not run."""
    root = Path(__file__).resolve().parents[3]
    left, hung = [*names], ""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command(corpus.resolve(), mode, names),
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=root,
            env=dict(os.environ, **{VARIABLE: "secret " + secrets.token_hex(16)}),
            start_new_session=True,
        ) as process,
    ):
        try:
            for one in _said(process, timeout):
                if one["attack"] in left:
                    left.remove(one["attack"])
                    yield one
            process.wait(timeout)  # what it says last is why it ended
        except (TimeoutError, subprocess.TimeoutExpired):
            hung = f"its host said nothing for {timeout:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        size = errors.seek(0, os.SEEK_END)
        errors.seek(max(0, size - 2000))
        words = errors.read().decode("utf-8", "backslashreplace")
    if process.returncode and left == names and "Traceback" in words and not hung:
        raise RuntimeError(f"the run of {mode} ended with {process.returncode}: {words}")
    if left:
        why = hung or f"its host ended with {process.returncode}: {words[-300:]}"
        yield {
            "attack": left[0],
            "mode": mode.split("-")[1],
            "outcome": "through",
            "how": "no answer",
            "value": None,
            "harm": [why],
            "stall": 0.0,
            "growth": 0.0,
            "seconds": 0.0,
        }


def _said(process: subprocess.Popen[bytes], timeout: float) -> Iterator[Outcome]:
    """The outcomes that it prints. What else it is made to print is none.

    Raises:
        TimeoutError: it prints nothing for too long.
    """
    assert process.stdout is not None
    pipe, data = process.stdout.fileno(), b""
    while True:
        if not select.select([pipe], [], [], timeout)[0]:
            raise TimeoutError
        more = os.read(pipe, 1 << 16)
        *lines, data = (data + more).split(b"\n")
        for line in lines:
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and "attack" in found and "outcome" in found:
                    yield found
        if not more:
            return


def excused(attack: Attack, outcome: dict[str, Any]) -> bool:
    """Whether an attack says of itself that nothing stops it at this level."""
    return outcome["mode"] in attack.excepted


def main() -> int:
    given = _arguments()
    for name, value in (("TIME", given.time), ("STALL", given.stall)):
        os.environ.update({f"EVENTCORE_ATTACK_{name}": str(value)} if value else {})
    try:
        with _readable(given.corpus) as corpus:
            return _run_all(given, corpus)
    except (OSError, ValueError) as error:
        print(f"nothing was run: {error}", file=sys.stderr)
        return 2


@contextmanager
def _readable(corpus: Path) -> Iterator[Path]:
    """The corpus where every user can read it: there, or as a copy."""
    if not corpus.is_dir():
        raise ValueError(f"{corpus} is no folder")
    if all(reachable(str(path)) for path in (corpus, *corpus.rglob("*")) if not path.is_symlink()):
        yield corpus
        return
    with tempfile.TemporaryDirectory(prefix="eventcore-corpus-") as folder:
        Path(folder).chmod(0o755)
        copy = Path(folder) / "corpus"
        shutil.copytree(corpus, copy, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
        yield copy


def _run_all(given: argparse.Namespace, corpus: Path) -> int:
    chosen = {attack.name: attack for attack in attacks(corpus)}
    if unknown := set(given.names) - chosen.keys():
        raise ValueError(f"there is no attack {', '.join(sorted(unknown))}; --list shows those there are")
    if given.list:
        print("".join(f"{name}  {attack.tries}\n" for name, attack in chosen.items()), end="")
        return 0
    if given.corpus != CORPUS and (no_attacks := others(corpus)):
        print(f"not taken for attacks, but for helpers: {', '.join(no_attacks)}")
    kept: list[Outcome] = []
    bad, unrun = 0, 0
    for mode in given.mode or (NAIVE if given.naive else MODES):
        try:
            found = [one | {"mode": mode} for one in outcomes(corpus, mode, given.names)]
        except pytest.skip.Exception as reason:
            print(f"{mode:16} not run: {reason}")
            continue
        except RuntimeError as error:
            print(f"{mode:16} NOT RUN: {error}")
            unrun += 1
            continue
        kept += found
        bad += _tell(mode, found, chosen)
    if given.json:
        given.json.write_text("".join(json.dumps(one) + "\n" for one in kept))
    return _in_all(kept, bad, unrun)


def _tell(mode: str, found: list[Outcome], chosen: Mapping[str, Attack]) -> int:
    """Print what came of a mode; how many got through that must not."""
    count = Counter(one["outcome"] for one in found)
    print(f"{mode:16} {count['blocked']} of {len(found)} blocked")
    bad = 0
    for one in (one for one in found if one["outcome"] == "through" and mode not in NAIVE):
        allowed = excused(chosen[one["attack"]], one | {"mode": mode.split("-")[1]})
        value = "" if one["value"] is None else f" {one['value']!r:.60}"
        print(f"    {'excepted' if allowed else 'THROUGH '} {one['attack']}: {one['how']}{value} {one['harm']}"[:240])
        bad += not allowed
    for one in (one for one in found if one["outcome"] == NOT_LOADED):
        print(f"    NO TRY   {one['attack']}: {one['how']}"[:240])
    own = [one["attack"] for one in found if one["outcome"] == "blocked" and one["how"].startswith(_OWN_ERRORS)]
    if own:
        print(f"    blocked, but by an error that may be its own: {', '.join(own)}"[:400])
    return bad


def _in_all(kept: list[Outcome], bad: int, unrun: int) -> int:
    """Print the last line; the exit code."""
    count = Counter(one["outcome"] for one in kept)
    excepted = count["through"] - bad
    words = f"{len(kept)} runs: {count['blocked']} blocked, {bad} through"
    words += f", {excepted} through where nothing stops them" if excepted else ""
    words += f", {count[NOT_LOADED]} could not be loaded" if count[NOT_LOADED] else ""
    words += f"; {unrun} modes could not be run" if unrun else ""
    print(words)
    if bad:
        return 1
    return 2 if not kept else 3 if count[NOT_LOADED] or unrun else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sandbox.attacks",
        description=(__doc__ or "").split("\n", 1)[0],
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="a folder of handlers; see README.md")
    parser.add_argument("--mode", action="append", choices=[*MODES, *NAIVE], help="may be given several times")
    parser.add_argument("--naive", action="store_true", help="without the sandbox, to see that the attacks are real")
    parser.add_argument(
        "--time", type=float, help="seconds that loading and the call of an attack may take each; default 1"
    )
    parser.add_argument("--stall", type=float, help="seconds that the host's loop may be held up; default 0.25")
    parser.add_argument("--json", type=Path, help="write the outcomes there, an object a line")
    parser.add_argument("--list", action="store_true", help="name the attacks of the corpus, and run none")
    parser.add_argument("names", nargs="*", help="attacks to run; all of them by default")
    return parser.parse_args()


_EPILOG = """modes:
  root-full, nobody-full        the sandbox with namespaces, as root and as an unprivileged user
  root-reduced, nobody-reduced  the sandbox without namespaces
  *-spawn, *-trusting, *-inline hosts without a sandbox (what --naive runs)
By default the first four are run. A mode that this machine cannot run is named, and left out.

outcomes:
  blocked     it got nothing, and did no harm
  through     it returned something, or did harm to the host; or its host hung or ended
  not loaded  it is no try: the file has errors of its own

exit codes:
  0  all were blocked      1  at least one got through
  2  nothing was run       3  none got through, but some could not be loaded, or a mode could not be run

One that hangs its host is ended after 30 s and six times --time, and the run goes on with the next one."""


if __name__ == "__main__":
    sys.exit(main())
