"""The writer: gathers what is committed at the same time into groups, one transaction each.

A lone commit goes to the database at once. While a group is on its way others gather and make the next group, so the
cost of making a group durable is shared by as many commits as there are, without any artificial delay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from eventcore.kernel.errors import Conflict, StoreClosed
from eventcore.kernel.event import after
from eventcore.kernel.ports import Faults, Metrics
from eventcore.kernel.records import Batch, Guard, JournalEntry
from eventcore.storage.sqlite.connection import Connection
from eventcore.storage.sqlite.errors import explain
from eventcore.storage.sqlite.group import Outcome, write_group
from eventcore.storage.watchers import Watchers

#: How many commits may wait; the callers of further ones wait to be let in.
_MOST_WAITING = 10_000


class _Job:
    """A batch on its way, and the future that its committer waits for."""

    __slots__ = ("batch", "future", "guards")

    def __init__(self, batch: Batch, guards: Sequence[Guard], future: asyncio.Future[int]) -> None:
        self.batch, self.guards, self.future = batch, guards, future


class Writer:
    """The one task that writes."""

    def __init__(
        self,
        connection: Connection,
        path: Path,
        watchers: Watchers,
        faults: Faults,
        group_limit: int,
        metrics: Metrics | None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._watchers = watchers
        self._faults = faults
        self._group_limit = group_limit
        self._metrics = metrics
        self._jobs: deque[_Job] = deque()
        self._room = asyncio.Event()
        self._wake = asyncio.Event()
        self._idle = False
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="eventcore-store-writer")

    async def room(self) -> None:
        """Return when another commit may be submitted, or will be refused."""
        while self.full and not self._closing:
            self._room.clear()
            await self._room.wait()

    @property
    def full(self) -> bool:
        """Whether `room` must be awaited before the next `submit`."""
        return len(self._jobs) >= _MOST_WAITING

    def submit(self, batch: Batch, guards: Sequence[Guard]) -> asyncio.Future[int]:
        """The future of a commit. A cancelled caller abandons it; the job stays in the queue and is written."""
        if self._closing:
            raise StoreClosed
        future = self._loop.create_future()
        self._jobs.append(_Job(batch, guards, future))
        if self._idle:
            self._idle = False
            self._wake.set()
        return future

    async def close(self) -> None:
        """Write what is waiting, and end."""
        self._closing = True
        self._wake.set()
        self._room.set()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        jobs: list[_Job] = []
        try:
            while True:
                while not self._jobs:
                    if self._closing:
                        return
                    self._wake.clear()
                    self._idle = True
                    await self._wake.wait()
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), self._group_limit))]
                self._room.set()
                self._settle(jobs, await self._write(jobs))
                jobs = []
        finally:
            # Only when this task itself is cancelled is there anything left: nobody may wait for it for ever.
            self._closing = True
            jobs += self._jobs
            self._settle(jobs, [StoreClosed("the store was torn down under this commit")] * len(jobs))
            self._jobs.clear()
            self._room.set()

    async def _write(self, jobs: list[_Job]) -> list[Outcome]:
        work = [(job.batch, job.guards) for job in jobs]
        began = self._loop.time()
        try:
            outcomes = await self._connection.run(write_group, work, self._faults)
        except Exception as error:  # noqa: BLE001 - whatever it was, the group's committers learn of it and work goes on
            return [error] * len(jobs)
        if self._metrics is not None:
            self._metrics.observe("eventcore_commit_group_size", len(jobs))
            self._metrics.observe("eventcore_commit_seconds", self._loop.time() - began)
        return outcomes

    def _settle(self, jobs: list[_Job], outcomes: list[Outcome]) -> None:
        """Tell committers and listeners, in order."""
        for job, outcome in zip(jobs, outcomes, strict=True):
            self._settle_one(job, outcome)

    def _settle_one(self, job: _Job, outcome: Outcome) -> None:
        if isinstance(outcome, int) and job.batch.log:
            self._tell(job.batch, outcome)
        # Done already: its caller was cancelled.
        if job.future.done():
            return
        if isinstance(outcome, int):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(self._explained(outcome))

    def _tell(self, batch: Batch, first: int) -> None:
        for position, entry in enumerate(batch.log, first):
            after(entry.event if isinstance(entry, JournalEntry) else entry, position)
        self._watchers.tell(batch.log)

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, Conflict):
            return error
        explained = explain(error, self._path)
        explained.__cause__ = error
        return explained
