"""Runs attacks in one mode, in this process, and prints what came of each, a JSON object a line.

    python -m tests.sandbox.attacks.run CORPUS MODE [NAME...]

Modes: `full` and `reduced` are the sandbox; `spawn` is our worker without it, `trusting` a host that believes its
worker, `inline` one that has its plugins in its own process. Those three are for comparison, and attacks succeed there:
`python -m tests.sandbox.attacks` holds them apart from the rest of the machine.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio

from eventcore.kernel.errors import EventCoreError, PermissionDenied
from eventcore.plugins.outside.beneath import reading
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.diskwatch import remove
from eventcore.plugins.sandbox.launch import Launcher, host_paths, spawn
from eventcore.plugins.sandbox.linux import calls
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import Allowance, WorkerLimits, WorkerSpec
from eventcore.plugins.services import logs as services
from tests.sandbox.attacks.adapter import adapt
from tests.sandbox.attacks.catalogue import Attack, attacks
from tests.sandbox.attacks.gauges import MOST_STALL, Gauges
from tests.sandbox.attacks.naive import TrustingWorker, inline
from tests.sandbox.attacks.plant import Plant, descendants, end, spare_of

MEMORY_MB, DISK_MB, THREADS = 64, 8, 24
#: How long an attack may take, and how long one that hangs its host is waited for. Seconds.
_TIME = float(os.environ.get("EVENTCORE_ATTACK_TIME") or 1.0)
_HANG = _TIME + 1.5
#: What is left running after an answer has so long to do its harm. Seconds.
_AFTER = 0.06
#: How often an attack is run when the loop was held up, or when it got through while the host came late: other things
#: on the machine do that too, and who comes late does not see in time what it stops by looking. Before the second try
#: there is a pause, before each further one a pause longer by so much. Seconds.
_TRIES, _REST = 6, 0.3
#: What was killed is waited for so long before it counts as left. Seconds.
_ENDING = 3.0
#: What an error with its output and trace may come to, in characters.
_MOST_WORDS = 300_000
#: The outcome of an attack that is none: it cannot be loaded at all.
NOT_LOADED = "not loaded"
#: Errors of loading that are the file's own.
_MISTAKES = frozenset(
    "SyntaxError IndentationError TabError ImportError ModuleNotFoundError NameError AttributeError TypeError KeyError "
    "IndexError UnicodeDecodeError NoSuchModule NoSuchClass LoadError".split()
)
#: By what a corpus says in its answers whether it succeeded.
_SAYS = ("success", "succeeded", "ok", "escaped", "exploited", "leaked", "pwned")
#: What moves a cursor, ends a line unseen, or turns the direction of a line.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LOGGED: Any = SimpleNamespace(record=SimpleNamespace(slug="attack"))
_NEIGHBOUR = "def run(params):\n    return params\n"


@dataclass(slots=True)
class Outcome:
    """What came of one attack. See README.md."""

    attack: str
    mode: str
    outcome: str
    how: str
    value: Any = None
    harm: list[str] = field(default_factory=list)
    stall: float = 0.0
    growth: float = 0.0
    seconds: float = 0.0


class Range:
    """Where attacks are run: one plant, one launcher, one neighbour."""

    def __init__(self, corpus: Path, mode: str, folder: Path, plant: Plant) -> None:
        self.corpus, self.mode, self._plant = corpus, mode, plant
        self._code = folder / "plugin"
        self._neighbour_code = folder / "neighbour"
        self._sandbox = Sandbox(namespaces=mode == "full")
        self._confined = mode in ("full", "reduced")
        self._launcher: Launcher = self._sandbox if self._confined else spawn
        self._neighbour: ProcessWorker
        #: The file that the attack's plugin is loaded from.
        self._module = ""
        #: How late the loop came, at most, while the last attack was run. Seconds.
        self._late = 0.0
        self._lines = _Lines()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Range]:
        self._neighbour_code.mkdir()
        (self._neighbour_code / "handler.py").write_text(_NEIGHBOUR)
        logging.getLogger().addHandler(self._lines)
        try:
            async with anyio.create_task_group() as self._tasks:
                self._neighbour = await self._start(WorkerSpec("neighbour", self._neighbour_code))
                yield self
                await self._neighbour.close()
        finally:
            logging.getLogger().removeHandler(self._lines)
            self._sandbox.close()

    async def _start(self, spec: WorkerSpec) -> ProcessWorker:
        worker = await ProcessWorker.start(spec, self._tasks, launcher=self._launcher)
        try:
            await worker.load(_host)
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def run(self, attack: Attack) -> Outcome:
        """Run it; once more if something else may have held the loop up."""
        for number in range(1, _TRIES + 1):
            found = await self._once(attack)
            late = self._confined and found.outcome == "through" and self._late > MOST_STALL
            if number == _TRIES or not (late or any("held up" in one for one in found.harm)):
                break
            print(f"{attack.name} once more: {found.harm}", flush=True)  # who waits for us hears that we live
            await asyncio.sleep(number * _REST)
        return found

    async def _once(self, attack: Attack) -> Outcome:
        self._plant.renew()
        self._copy(attack)
        before = {self._plant.victim, *self._descendants()}
        self._lines.harm = []
        began = time.perf_counter()
        async with Gauges() as gauges:
            value, how, harm = await self._attempt(attack)
            harm += await self._ask_the_neighbour()
        harm += self._lines.harm
        harm += gauges.harm()
        self._late = gauges.late
        if left := await self._left(before):
            harm.append(f"{len(left)} processes are left")
            end(left)
        harm += self._plant.harm()
        if (self._code / attack.file).read_bytes() != (self.corpus / attack.file).read_bytes():
            harm.append("its own code is changed")
        harm += self._plant.results(_result if self._confined else _any_file)
        if self._plant.token in json.dumps(value, default=repr) + how:
            harm.append("the secret is in its words")
        through = succeeded(value) or bool(harm)
        outcome = "through" if through else NOT_LOADED if _unloadable(how) else "blocked"
        seconds = time.perf_counter() - began
        return Outcome(
            attack.name, self.mode, outcome, how, value, harm, round(gauges.stall, 3), round(gauges.growth, 1), seconds
        )

    async def _left(self, before: set[int]) -> list[int]:
        """Which processes there are that were not there before; what was killed with its namespace may yet go."""
        left = [pid for pid in self._descendants() if pid not in before]
        until = time.monotonic() + (_ENDING if self._confined else 0.2)
        while left and time.monotonic() < until:
            await asyncio.sleep(0.02)
            there = self._descendants()
            left = [pid for pid in left if pid in there]
        return left

    def _descendants(self) -> list[int]:
        """What came of this process, but for the worker that the sandbox keeps to spare, which has run nothing yet."""
        spare = [pid for one in self._sandbox._zygotes.values() for pid in spare_of(one.child.pid)]
        return [pid for pid in descendants(os.getpid()) if pid not in spare]

    def _copy(self, attack: Attack) -> None:
        shutil.rmtree(self._code, ignore_errors=True)
        # Links stay links: who follows them here copies files of ours, or changes their modes.
        shutil.copytree(self.corpus, self._code, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        (self._place(attack) / "planted.json").write_text(json.dumps(self._told()))
        self._module = adapt(attack, self._code) if attack.adapted else attack.file
        for path in (self._code, *self._code.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)
        if not self._confined:
            (self._code / attack.file).chmod(0o666)

    def _place(self, attack: Attack) -> Path:
        """The folder of the plugin that the attack is."""
        return self._code / attack.folder

    def _told(self) -> dict[str, Any]:
        return self._plant.told() | {"memory_mb": MEMORY_MB, "disk_mb": DISK_MB, "seconds": _TIME}

    def _spec(self, attack: Attack) -> WorkerSpec:
        programs = ("/bin/sh", "/bin/sleep", "/usr/bin/setsid") if attack.granted == "a program" else ()
        allow = Allowance(
            write=(str(self._plant.workspace),),
            memory_mb=MEMORY_MB,
            disk_mb=DISK_MB,
            data_mb=2 * DISK_MB,
            threads=THREADS,
            programs=programs,
            ports=(self._plant.granted_port,) if attack.granted == "a port" else (),
        )
        return WorkerSpec(
            "attack",
            self._place(attack),
            module=Path(self._module).relative_to(attack.folder).as_posix(),
            entry_point="run" if attack.adapted else attack.function,
            allow=allow,
            # A corpus that was written for other hosts imports what lies beside it by its name.
            paths=(*host_paths(), str(self._place(attack)), str(self._code)),
            limits=WorkerLimits(load=_TIME),
        )

    async def _attempt(self, attack: Attack) -> tuple[Any, str, list[str]]:
        """What it brought back, how it ended, and what the host did that it should not have."""
        if self.mode == "trusting":
            return await self._trusting(attack)
        if self.mode == "inline":
            return await inline(self._spec(attack), self._told(), _HANG)
        try:
            worker = await self._start(self._spec(attack))
        except EventCoreError as error:
            return None, f"not loaded: {_words(error)}", []
        try:
            answer = await worker.call("run", {"params": self._told()}, timeout=_TIME, host=_host)
            await asyncio.sleep(_AFTER)
            return answer["result"], "answered", self._in_text(answer["stdout"] + answer["stderr"])
        except EventCoreError as error:
            return None, _words(error), self._in_text(json.dumps(error.as_dict(), ensure_ascii=False))
        finally:
            await worker.kill("the attack is over")

    def _in_text(self, text: str) -> list[str]:
        """What is wrong with what it printed or raised."""
        return _text_harm(text) + (["the secret is in its words"] if self._plant.token in text else [])

    async def _trusting(self, attack: Attack) -> tuple[Any, str, list[str]]:
        worker = TrustingWorker(self._spec(attack))
        try:
            with anyio.fail_after(_HANG):
                await worker.load()
                value = await worker.call("run", {"params": self._told()})
                await asyncio.sleep(_AFTER)
            return value, "answered", worker.forged
        except TimeoutError:
            return None, "no answer", ["the host waits for ever", *worker.forged]
        except Exception as error:
            return None, repr(error)[:300], worker.forged + _text_harm(str(error))
        finally:
            await worker.kill()  # which may add to what it was made to do

    async def _ask_the_neighbour(self) -> list[str]:
        try:
            answer = await self._neighbour.call("run", {"params": 5}, timeout=10)
        except EventCoreError as error:
            self._neighbour = await self._start(WorkerSpec("neighbour", self._neighbour_code))
            return [f"the neighbour: {_words(error)}"]
        return [] if answer["result"] == 5 else ["the neighbour answers something else"]


def _unloadable(how: str) -> bool:
    """Whether it ended for a reason of its own before it could try anything. What the sandbox withholds while it is
    loaded has other names: an OSError, a MemoryError, a limit, a sandbox that refuses the whole plugin."""
    kind = how.removeprefix("not loaded: ").partition(":")[0]
    return kind == "NoEntryPoint" or (how.startswith("not loaded: ") and kind in _MISTAKES)


def succeeded(value: Any) -> bool:
    """Whether an attack says that it got what it wanted: by anything but None, False, and a dictionary that says no."""
    if isinstance(value, dict):
        return value.get("blocked") is not True and not any(value.get(word) is False for word in _SAYS)
    return value is not None and value is not False


def _result(folder: Path, name: str) -> bytes:
    """As the host reads results."""
    with reading(folder, name, 1 << 20) as (fd, size):
        return os.read(fd, size)


def _any_file(folder: Path, name: str) -> bytes:
    """As hosts do that think no evil."""
    path = folder / name
    return path.read_bytes() if path.is_file() else b""


async def _host(method: str, params: dict[str, Any]) -> Any:
    """The services of a host that grants nothing but to log."""
    if method != "log":
        raise PermissionDenied(f"{method[:64]!r} is not granted")
    await services.write(_LOGGED, params)


class _Lines(logging.Handler):
    """Reads the host's log as a terminal would."""

    def __init__(self) -> None:
        super().__init__()
        self.harm: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.harm += _text_harm(record.getMessage())


def _text_harm(text: str) -> list[str]:
    """What a terminal would stumble over, or a log would drown in."""
    found = ["control characters in its words"] if _CONTROL.search(text) else []
    return found + ([f"{len(text):,} characters of words"] if len(text) > _MOST_WORDS else [])


def _words(error: EventCoreError) -> str:
    kind = getattr(error, "kind", type(error).__name__)
    return f"{kind}: {str(error).splitlines()[0][:200]}"


async def main(corpus: Path, mode: str, names: list[str]) -> None:
    """Run the named attacks, or all of them."""
    with suppress(OSError):
        calls.prctl(calls.PR_SET_CHILD_SUBREAPER, 1)  # so that what is orphaned is seen
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    chosen = [attack for attack in attacks(corpus) if not names or attack.name in names]
    folder = Path(tempfile.mkdtemp(prefix="eventcore-attacks-"))
    try:
        with Plant(folder) as plant:
            async with Range(corpus, mode, folder, plant).opened() as place:
                for attack in chosen:
                    print(json.dumps(asdict(await place.run(attack)), default=repr), flush=True)
    finally:
        remove(str(folder))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
