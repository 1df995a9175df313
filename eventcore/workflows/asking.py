"""Asking something of a run: to pause, to go on, to end. Whoever asks waits until it is committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

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
        go_on: Callable[[Run, Asked, Arrival], Awaitable[None]],
        settle: Callable[[Driven, Arrival], Awaitable[Decision | None]],
        call: Callable[[Driven, list[Call]], None],
        spawn: Callable[..., None],
    ) -> None:
        self._driven, self._claims = driven, claims
        self._go_on, self._settle, self._call, self._spawn = go_on, settle, call, spawn

    async def ask(self, run_id: str, asked: Asked, guards: tuple[Guard, ...] = (), timeout: float = 30.0) -> bool:
        """Do something to a run; return whether it was carried out (not whether it changed anything).

        Args:
            guards: what must hold besides, in the commit that does it.

        Raises:
            Conflict: another engine drives the run, or a guard does not hold.
        """
        done = anyio.Event()
        arrival = Arrival(asked, guards=guards, done=done)
        driven = self._driven.get(run_id)
        if driven is None:
            run = await self._claims.one(run_id)
            if run is None:
                raise Conflict(f"another engine drives run {run_id}; ask there, or wait until its lease has ended")
            await self._go_on(run, asked, arrival)
        elif driven.inline is not None and not driven.stops(asked):
            self._spawn(self._aside, driven, arrival)
        else:
            driven.put(arrival)
        with anyio.move_on_after(timeout):
            await done.wait()
        if arrival.refused is not None:
            raise arrival.refused
        return done.is_set()

    async def _aside(self, driven: Driven, arrival: Arrival) -> None:
        """Settle while the run's own task is in a call, which goes on: a pause must not wait for a step to end."""
        async with driven.asides():
            decision = None if driven.closed else await self._settle(driven, arrival)
            if decision is not None:
                self._call(driven, decision.calls)
        if arrival.done is not None:
            arrival.done.set()
