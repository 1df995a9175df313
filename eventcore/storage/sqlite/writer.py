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
from eventcore.kernel.event import Event, after
from eventcore.kernel.ports import Faults, Metrics
from eventcore.kernel.records import Batch, Guard, JournalEntry
from eventcore.storage.sqlite.connection import Connection
from eventcore.storage.sqlite.errors import explain
from eventcore.storage.sqlite.group import Outcome, write_group
from eventcore.storage.watchers import Watchers

#: How many commits may wait; the callers of further ones wait to be let in.
_MOST_WAITING = 10_000


class _Job:
    """A batch on its way, and the futures of its committers."""

    __slots__ = ("batch", "futures", "guards", "open")

    def __init__(self, batch: Batch, guards: Sequence[Guard], future: asyncio.Future[int], *, open: bool) -> None:
        self.batch, self.guards, self.futures = batch, guards, [future]
        #: Whether further events may join: each of the batch's events has a future of its own then.
        self.open = open

    def apart(self) -> list[_Job]:
        """Each of its events as a job of its own."""
        pairs = zip(self.batch.log, self.futures, strict=True)
        return [_Job(Batch([entry]), (), future, open=False) for entry, future in pairs]


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
        self._waiting = 0
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
        return self._waiting >= _MOST_WAITING

    def submit(self, batch: Batch, guards: Sequence[Guard]) -> asyncio.Future[int]:
        """The future of a commit. A cancelled caller abandons it; the job stays in the queue and is written."""
        future = self._future()
        self._jobs.append(_Job(batch, guards, future, open=False))
        return future

    def submit_event(self, event: Event) -> asyncio.Future[int]:
        """The same for one event and nothing else; those that come one after the other travel as one job."""
        future = self._future()
        last = self._jobs[-1] if self._jobs else None
        if last is not None and last.open and len(last.futures) < self._group_limit:
            last.batch.log.append(event)
            last.futures.append(future)
        else:
            self._jobs.append(_Job(Batch([event]), (), future, open=True))
        return future

    def _future(self) -> asyncio.Future[int]:
        if self._closing:
            raise StoreClosed
        self._waiting += 1
        if self._idle:
            self._idle = False
            self._wake.set()
        return self._loop.create_future()

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
                jobs = self._take()
                while jobs:
                    jobs = self._settle(jobs, await self._write(jobs))
        finally:
            # Only when this task itself is cancelled is there anything left: nobody may wait for it for ever.
            self._closing = True
            jobs += self._jobs
            for job in jobs:
                self._failed(job, StoreClosed("the store was torn down under this commit"))
            self._jobs.clear()
            self._room.set()

    def _take(self) -> list[_Job]:
        """The next group."""
        jobs, count = [self._jobs.popleft()], 0
        while True:
            jobs[-1].open = False
            count += len(jobs[-1].futures)
            if not self._jobs or count + len(self._jobs[0].futures) > self._group_limit:
                break
            jobs.append(self._jobs.popleft())
        self._waiting -= count
        self._room.set()
        return jobs

    async def _write(self, jobs: list[_Job]) -> list[Outcome]:
        work = [(job.batch, job.guards) for job in jobs]
        began = self._loop.time()
        try:
            outcomes = await self._connection.run(write_group, work, self._faults)
        except Exception as error:  # noqa: BLE001 - whatever it was, the group's committers learn of it and work goes on
            return [error] * len(jobs)
        if self._metrics is not None:
            self._metrics.observe("eventcore_commit_group_size", sum(len(job.futures) for job in jobs))
            self._metrics.observe("eventcore_commit_seconds", self._loop.time() - began)
        return outcomes

    def _settle(self, jobs: list[_Job], outcomes: list[Outcome]) -> list[_Job]:
        """Tell listeners, then committers, in order; return what is to be written again, each event alone."""
        again: list[_Job] = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, int):
                self._stored(job, outcome)
            elif len(job.futures) > 1:
                # One of them may be the reason, and each has to fail or stand by itself.
                again.extend(job.apart())
            else:
                self._failed(job, outcome)
        return again

    def _stored(self, job: _Job, first: int) -> None:
        if job.batch.log:
            for position, entry in enumerate(job.batch.log, first):
                after(entry.event if isinstance(entry, JournalEntry) else entry, position)
            self._watchers.tell(job.batch.log)
        for position, future in enumerate(job.futures, first):
            # Done already: its caller was cancelled.
            if not future.done():
                future.set_result(position)

    def _failed(self, job: _Job, outcome: Exception) -> None:
        for future in job.futures:
            if not future.done():
                future.set_exception(self._explained(outcome))

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, Conflict):
            return error
        explained = explain(error, self._path)
        explained.__cause__ = error
        return explained
