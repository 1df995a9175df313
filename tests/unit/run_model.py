"""Random things done to runs of random workflows, and the engine held against what it must always keep.

At every rest: the journal, read back and folded, is the state that the engine had; nothing that was finished was called
again; rows of timers and waits are those that the steps wait for; the limits hold; what waits says what for. In the
end, once everything that can be given is given, every run is over. A seed repeats a life.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio

from eventcore import EventCore
from eventcore.kernel.errors import Conflict, NotFound
from eventcore.kernel.records import LIVE, Run
from eventcore.workflows.loading import load
from eventcore.workflows.pinned import plan_of
from eventcore.workflows.state import State, alive
from tests.unit.hand_clock import LIMIT, Ahead, pass_limit

#: Live runs of a limited workflow.
_LIMIT = 3
_OVER = ("completed", "failed", "cancelled", "terminated")
_KID = {
    "slug": "kid",
    "steps": [
        {"id": "a", "plugin": "mark", "with": {"name": "kid"}, "compensate": {"plugin": "unmark"}},
        {"id": "s", "sleep": LIMIT},
        {"id": "b", "plugin": "mark", "with": {"name": "kid", "boom": "{{ inputs.boom }}"}},
    ],
}
_KINDS = ["plugin", "plugin", "plugin", "sleep", "signal", "approve", "workflow"]
_WEIGHTS = {
    "start": 5,
    "pause": 2,
    "resume": 2,
    "cancel": 2,
    "terminate": 1,
    "retry": 3,
    "both": 3,
    "signal": 3,
    "decide": 3,
    "fork": 2,
    "pass": 2,
    "mend": 1,
    "restart": 1,
}


def _kind(chance: random.Random, name: str, depth: int) -> dict[str, Any]:
    match chance.choice(_KINDS + ["steps"] * (2 if depth < 2 else 0)):
        case "plugin":
            step: dict[str, Any] = {"plugin": "mark", "with": {"name": name, "boom": chance.random() < 0.25}}
            if chance.random() < 0.5:
                step["retry"] = {"attempts": 2, "initial": chance.choice(["1ms", LIMIT]), "jitter": False}
                step["retry"]["on_exhausted"] = chance.choice(["fail", "pause"])
            return step
        case "sleep":
            return {"sleep": chance.choice(["1ms", LIMIT])}
        case "signal":
            wait: dict[str, Any] = {"signal": chance.choice(["go", "stop"])}
            if chance.random() < 0.5:
                wait |= {"timeout": LIMIT, "on_timeout": chance.choice(["fail", "continue"])}
            return {"wait_for": wait}
        case "approve":
            return {"approve": "Go on?"}
        case "workflow":
            return {"workflow": "kid", "with": {"boom": chance.random() < 0.25}}
        case _:
            return {"steps": steps(chance, depth + 1)}


def steps(chance: random.Random, depth: int = 0) -> list[dict[str, Any]]:
    """Steps of a small workflow, with groups two deep."""
    found: list[dict[str, Any]] = []
    for number in range(chance.randint(1, 3)):
        step = {"id": f"s{number}", **_kind(chance, f"s{number}", depth)}
        if number and chance.random() < 0.5:
            step["needs"] = chance.sample([one["id"] for one in found], chance.randint(0, number))
        if chance.random() < 0.25:
            step |= {"foreach": [1, 2, 3], "max_parallel": chance.randint(1, 3)}
            step["on_item_error"] = chance.choice(["stop", "finish", "ignore"])
        if chance.random() < 0.5:
            step["compensate"] = {"plugin": "unmark", "with": {"boom": chance.random() < 0.2}}
            step["compensate"]["retry"] = {"attempts": 2, "initial": "1ms"}
        if chance.random() < 0.2:
            step["continue_on_error"] = True
        found.append(step)
    return found


class Life:
    """One random life of an engine and its runs.

    Args:
        store: outlives the engine's restarts.
        counts: how often what was done, for a printed line.
    """

    def __init__(self, seed: int, store: Any, counts: Counter[str]) -> None:
        self.chance, self.store, self.counts, self.clock = random.Random(seed), store, counts, Ahead()
        self.ids: list[str] = []
        self.mended = self.interrupted = False
        #: How often each key was called to its end, and the last state that the engine committed of each run.
        self.ended: Counter[str] = Counter()
        self.live: dict[str, State] = {}
        limit = {"limit": _LIMIT, "on_limit": "queue"}
        self.defined: list[dict[str, Any]] = [
            {"slug": "free", "steps": steps(self.chance)},
            {"slug": "limited", "steps": steps(self.chance), "concurrency": limit},
        ]

    async def live_through(self, moves: int, to_the_end: bool = True) -> None:
        """Do so many random things, then help every run to its end."""
        done = list[str]()
        try:
            await self._open()
            for _ in range(moves):
                [move] = self.chance.choices([*_WEIGHTS], [*_WEIGHTS.values()])
                done.append(move)
                await self._move(move)
            if to_the_end:
                done.append("finish")
                await self._finish()
        except BaseException as error:
            error.add_note(f"{self.defined}\n{done}")
            raise
        finally:
            await self._close()

    # -- the engine --------------------------------------------------------------------------------------------------

    def engine(self) -> EventCore:
        """One that is not open."""
        return EventCore(store=self.store, clock=self.clock)

    def heard(self, what: str, *words: str) -> None:
        """Something was called to its end, or acknowledged: `effect RUN STEP`, `acked VERB RUN`, `pass`."""

    async def _open(self) -> None:
        self._stack = AsyncExitStack()
        self.core = await self._stack.enter_async_context(self.engine())
        core, saver = self.core, self.core.engine.runner._saver

        @core.intent("mark")
        async def mark(params: dict[str, Any]) -> dict[str, Any]:
            await anyio.lowlevel.checkpoint()
            if params.get("boom") and not self.mended:
                raise BrokenPipeError("boom")
            self._effect(params["metadata"])
            return {"n": 1}

        @core.intent("unmark")
        async def unmark(params: dict[str, Any]) -> None:
            if params.get("boom"):
                raise BrokenPipeError("boom")
            self._effect(params["metadata"])

        count = saver.count

        def kept(active: Any, decision: Any, batch: Any) -> None:
            self.live[active.run.id] = decision.state
            count(active, decision, batch)

        saver.count = kept
        for one in (_KID, *self.defined):
            core.workflows.define(one)

    def _effect(self, about: dict[str, Any]) -> None:
        self.ended[about["idempotency_key"]] += 1
        self.heard("effect", about["run"], about["step"])

    async def _close(self) -> None:
        await self._stack.aclose()

    async def _rest(self) -> None:
        with anyio.move_on_after(10):
            while await self._at_work():
                await anyio.sleep(0.001)
            await self._check()
            return
        raise AssertionError(f"no rest at {self.clock.now()}: {await self.store.timers(self.clock.now() + 1)}")

    async def _at_work(self) -> bool:
        """Whether anything goes on; a run that was left behind waits for its intents until they are registered."""
        if not self.core.engine.idle or await self.store.timers(self.clock.now() + 1):
            return True
        return any(run.status == "waiting" and run.raw_error is not None for run in await self._all())

    # -- what is done ------------------------------------------------------------------------------------------------

    async def _move(self, move: str) -> None:
        run = self.chance.choice(self.ids[-4:] or [""])
        match move:
            case "start":
                self.ids.append((await self.core.workflows.start(self.chance.choice(["free", "limited"]))).id)
                self.heard("acked", "start", self.ids[-1])
            case "pass":
                self._pass()
            case "mend":
                self.mended = self.chance.random() < 0.5
            case "decide":
                await self._decide(self.chance.random() < 0.7, 1)
            case "restart":
                self.interrupted |= not self.core.engine.runner.idle
                await self._close()
                await self._open()
            case _ if run:
                await self._of_run(move, run)
        self.counts[move] += 1
        if self.chance.random() < 0.6:
            await self._rest()

    async def _of_run(self, move: str, run: str) -> None:
        match move:
            case "both":
                first, second = self.chance.sample(["pause", "cancel", "terminate", "resume", "retry"], 2)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._ask, first, run)
                    tasks.start_soon(self._ask, second, run)
            case "signal":
                with contextlib.suppress(Conflict):
                    await self.core.workflows.signal(run, self.chance.choice(["go", "stop"]))
                    self.heard("acked", "signal", run)
            case "fork":
                if forked := await self._tried(self.core.workflows.fork, run, self.chance.choice(["s0", "s1", "s2"])):
                    self.ids.append(forked.id)
                    self.heard("acked", "fork", forked.id)
            case _:
                await self._ask(move, run)

    async def _tried(self, do: Callable[..., Any], *args: Any) -> Any:
        with contextlib.suppress(Conflict, NotFound):
            return await do(*args)

    async def _ask(self, verb: str, run_id: str) -> None:
        was = (await self._row(run_id)).status
        now, why = "", ""
        try:
            now = (await getattr(self.core.workflows, verb)(run_id)).status
        except Conflict as conflict:
            why = str(conflict)
        if why:
            self.counts[f"{verb} refused"] += 1
            assert "has not done so yet" not in why, "a verb hangs"
            if verb in ("cancel", "terminate"):
                assert was in _OVER or (await self._row(run_id)).status in _OVER, why
            return
        self.counts[verb] += 1
        self.heard("acked", verb, run_id)
        assert verb != "pause" or now == "paused", (was, now)

    async def _decide(self, approved: bool, most: int) -> None:
        verbs = self.core.workflows.verbs
        for asked in (await verbs.approvals())[:most]:
            with contextlib.suppress(NotFound, Conflict):
                await verbs.decide(asked["run"], asked["step"], approved=approved)
                self.heard("acked", "decide", asked["run"])

    def _pass(self) -> None:
        self.heard("pass")
        pass_limit(self.core)

    # -- what must hold ----------------------------------------------------------------------------------------------

    async def _row(self, run_id: str) -> Run:
        row = await self.store.run(run_id)
        assert row is not None
        return row

    async def _all(self) -> list[Run]:
        return await self.core.workflows.runs(limit=1000)

    async def _check(self) -> None:
        runs = await self._all()
        live = Counter(run.slug for run in runs if run.status in ("running", "waiting"))
        assert live["limited"] <= _LIMIT, live
        heard: dict[str, set[str]] = {}
        for row in await self.store.listening():
            heard.setdefault(row.run, set()).add(row.path)
        timers: dict[str, list[Any]] = {}
        for timer in await self.store.timers(9e15, 10_000):
            timers.setdefault(timer.run, []).append(timer)
        known = {run.id: run for run in runs}
        for run in runs:
            await self._check_run(run, heard.get(run.id, set()), timers.get(run.id, []), known)
        self.counts["rests"] += 1

    async def _check_run(self, run: Run, heard: set[str], timers: list[Any], known: dict[str, Run]) -> None:
        if run.status == "queued":
            return
        plan = await plan_of(self.core.engine.workflows.registry, self.store, run)
        assert plan is not None
        state = (await load(self.store, run, plan)).state
        if run.id in self.live:
            assert state == self.live[run.id], f"the journal of {run.slug} {run.id} leads elsewhere"
        journal = await self.store.journal(run.id)
        self._check_calls(run, journal)
        waits = {path for path, step in state.steps.items() if step.status == "waiting" and alive(state, path)}
        if run.status in _OVER:
            assert (heard, timers) == (set(), []), (run.slug, run.status)
            return
        listens = {path for path in waits if state.steps[path].waits in ("event", "approval")}
        assert heard == listens, (run.status, heard, listens)
        assert run.status in ("waiting", "paused"), f"{run.slug} is {run.status}, and nobody drives it"
        assert (run.status == "paused") == state.paused
        assert waits or run.status == "paused", f"{run.slug} waits for nothing"
        told = {timer.id for timer in timers}
        for path in waits:
            step = state.steps[path]
            if step.timed and not (state.paused and step.waits == "retry"):
                assert any(name.startswith(f"{run.id}/{path}") for name in told), (path, step, told)
            if step.waits == "child":
                assert known[step.ref].status in LIVE or step.due, "waits for a child that is over"

    def _check_calls(self, run: Run, journal: list[Any]) -> None:
        done = Counter(
            entry.step
            for entry in journal
            if entry.event.type == "step_completed" and entry.event.data["status"] == "completed"
        )
        again = any(entry.event.type == "workflow_retried" for entry in journal)
        assert again or not done or max(done.values()) == 1, f"completed twice: {done.most_common(2)}"

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _finish(self) -> None:
        """Give every run what it wants; then all are over, and what was finished was called once."""
        self.mended = True
        for _ in range(60):
            await self._rest()
            left = [run for run in await self._all() if run.status in LIVE]
            if not left:
                break
            await self._help(left)
        else:
            raise AssertionError(f"never over: {[(run.slug, run.id, run.status, run.raw_error) for run in left]}")
        self.counts["runs"] += len(await self._all())
        assert self.interrupted or max(self.ended.values(), default=0) <= 1, self.ended.most_common(2)

    async def _help(self, left: list[Run]) -> None:
        for run in left:
            if run.status == "paused":
                await self._tried(self.core.workflows.resume, run.id)
            for signal in ("go", "stop"):
                await self._tried(self.core.workflows.signal, run.id, signal)
        await self._decide(True, 100)
        self._pass()
