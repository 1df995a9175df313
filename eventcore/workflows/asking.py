"""Asking something of a run: to pause, to go on, to end. Whoever asks waits until it is committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import anyio

from eventcore.kernel.errors import Conflict
from eventcore.kernel.records import Guard, Run
from eventcore.workflows.claims import Claims
from eventcore.workflows.decision import Decision
from eventcore.workflows.driven import Arrival, Driven
from eventcore.workflows.ticks import Asked, Call


class Asking:
    """One a runner.

    Args:
        driven: the runs that are being driven, by id.
        go_on: loads a run that is not, and drives it from what arrives.
        settle: reduces and commits one arrival of a run.
        call: makes calls beside what the run's own task does.
        spawn: begins a task of the runner.
    """

    def __init__(
        self,
        driven: Mapping[str, Driven],
        claims: Claims,
        *,
        go_on: Callable[[Run, Any, Arrival], Awaitable[None]],
        settle: Callable[[Driven, Arrival], Awaitable[Decision | None]],
        call: Callable[[Driven, list[Call]], None],
        spawn: Callable[..., None],
    ) -> None:
        self._driven, self._claims = driven, claims
        self._go_on, self._settle, self._call, self._spawn = go_on, settle, call, spawn
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def ask(
        self, run_id: str, asked: Asked, guards: tuple[Guard, ...] = (), timeout: float = 30.0
    ) -> bool | None:
        """Do something to a run; return whether it changed anything. None: it was not carried out in time.

        Args:
            guards: what must hold besides, in the commit that does it.

        Raises:
            Conflict: another engine drives the run, or a guard does not hold.
        """
        with anyio.move_on_after(timeout):
            # Who asks for something else in the same moment may load the run anew, and then our copy is out of date.
            while (changed := await self._once(run_id, Arrival(asked, guards=guards, done=anyio.Event()))) is None:
                pass
            return changed
        return None

    async def _once(self, run_id: str, arrival: Arrival) -> bool | None:
        # One loads a run, or each would make the other's copy out of date, again and again.
        async with self._turns.setdefault(run_id, anyio.Lock()):
            await self._give(run_id, arrival)
        assert arrival.done is not None
        await arrival.done.wait()
        if arrival.refused is not None:
            raise arrival.refused
        return arrival.changed

    async def _give(self, run_id: str, arrival: Arrival) -> None:
        driven = self._driven.get(run_id)
        if driven is None:
            run = await self._claims.one(run_id)
            if run is None:
                raise Conflict(f"another engine drives run {run_id}; ask there, or wait until its lease has ended")
            await self._go_on(run, arrival.tick, arrival)
        else:
            self.hand(driven, arrival)

    def hand(self, driven: Driven, arrival: Arrival) -> None:
        """Give it to a run that is being driven."""
        if driven.inline is not None and not driven.stops(arrival.tick):
            self._spawn(self._aside, driven, arrival)
        else:
            driven.put(arrival)

    async def _aside(self, driven: Driven, arrival: Arrival) -> None:
        """Settle while the run's own task is in a call, which goes on: a pause must not wait for a step to end."""
        async with driven.asides():
            if driven.inline is None and not driven.closed:
                driven.put(arrival)  # the call has ended meanwhile, and the run's own task settles what came of it
                return
            decision = None if driven.closed else await self._settle(driven, arrival)
            if decision is not None:
                self._call(driven, decision.calls)
        arrival.settled(decision)
