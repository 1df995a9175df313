"""Memories of a tenant: written with the call that made them, found by words, and by likeness where a service measures
what texts mean.

Measuring follows behind: a memory is stored without a vector, and a task asks the service for those that have none of
its model. So no call waits for the service, nothing is lost while it is down, and another model is a matter of time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EventCoreError, InvalidPayload
from eventcore.kernel.json import encode
from eventcore.kernel.keeping import MemorySettings
from eventcore.kernel.ports import Clock, Ids, Metrics, Store
from eventcore.kernel.records import Audit, Batch, Memory
from eventcore.plugins.memory.embeddings import MAX_TEXTS, Embeddings, EmbeddingsFailed

log = logging.getLogger("eventcore.plugins")

MAX_RESULT = 256 * 1024
MAX_QUERY = 4096
_PAGE = 1000
# Seconds between looks for what is not measured yet or too much: at rest, while writes are on their way, after a
# failure of the service.
_IDLE, _SOON, _ON_ITS_WAY, _AFTER_FAILURE = 60.0, 0.2, 5.0, 30.0


class Memories:
    """What is remembered; one an engine.

    Args:
        embeddings: measures what texts mean; None: memories are found by words only.
    """

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        settings: MemorySettings,
        embeddings: Embeddings | None,
    ) -> None:
        self._store, self._bus, self._clock, self._ids, self._metrics = store, bus, clock, ids, metrics
        self._settings, self._embeddings = settings, embeddings
        self._bell = anyio.Event()
        self._expected = 0.0
        # Tenant -> what it has written since its memories were counted.
        self._written: dict[str, int] = {}

    # -- writing -----------------------------------------------------------------------------------------------------

    def row(self, tenant: str, owner: str, query: str, result: Any) -> Memory:
        """A memory to put into a batch.

        Raises:
            InvalidPayload: the result is not JSON, or over 256 KiB.
        """
        raw = encode(result, limit=MAX_RESULT, what="the result to remember")
        self._metrics.count("memory_writes_total", plugin=owner)
        self._written[tenant] = self._written.get(tenant, 0) + 1
        self._expected = self._clock.monotonic() + _ON_ITS_WAY
        self._bell.set()
        return Memory(self._ids.new(), tenant, owner, query[:MAX_QUERY], raw, self._clock.now())

    def of_result(self, intent: str, params: Mapping[str, Any], result: Any, owner: str, tenant: str) -> Memory | None:
        """The memory of a call's result, if the rule is to remember it and it is not too large."""
        if not self._settings.store_results or result is None:
            return None
        said = encode({key: value for key, value in params.items() if key not in ("metadata", "user_context")})
        try:
            return self.row(tenant, owner, f"{intent} {said.decode()}", result)
        except InvalidPayload:
            return None

    # -- reading -----------------------------------------------------------------------------------------------------

    async def find(
        self, tenant: str, text: str, limit: int, owner: str | None = None
    ) -> list[tuple[Memory, float | None]]:
        """Memories of a tenant that fit a text, at most `limit`, best first.

        Without a service, or without words to measure: those that hold every word, newest first. With one: those that
        hold every word and are not measured yet, then the nearest first, with their likeness (1 is the same), then
        others that hold every word.
        """
        # Read before the service is asked: what is measured meanwhile is then among the near ones, not among the rest.
        words = await self._store.memories(tenant, text, limit, owner=owner)
        near: list[tuple[Memory, float | None]] = []
        if self._embeddings is not None and text.strip():
            try:
                near = await self._near(self._embeddings, tenant, text, limit, owner)
            except EmbeddingsFailed as error:
                log.warning("memories are searched by words only: %s", error)
        known, model = {row.id for row, _ in near}, self._settings.model
        fresh = [(row, None) for row in words if row.id not in known and near and row.model != model]
        rest = [(row, None) for row in words if row.id not in known and not (near and row.model != model)]
        return [*fresh, *near, *rest][:limit]

    async def _near(
        self, embeddings: Embeddings, tenant: str, text: str, limit: int, owner: str | None
    ) -> list[tuple[Memory, float | None]]:
        [vector] = await embeddings.vectors([text])
        if vector is None:
            return []
        most = limit if owner is None else _PAGE
        found = await self._store.nearest(tenant, embeddings.model, vector, most, self._settings.compare)
        near: list[tuple[Memory, float | None]] = []
        near.extend(one for one in found if owner in (None, one[0].owner))
        return near[:limit]

    # -- forgetting --------------------------------------------------------------------------------------------------

    async def purge(
        self, context: CallContext, *, text: str = "", owner: str | None = None, until: float | None = None
    ) -> int:
        """Forget the memories of the context's tenant that hold every word of `text`; return how many there were.

        Args:
            owner: only those of this plugin.
            until: only those from before this time, seconds since the epoch.
        """
        count = 0
        while rows := await self._store.memories(context.tenant, text, _PAGE, owner=owner, until=until):
            await self._store.commit(Batch(memory_done=[row.id for row in rows]))
            count += len(rows)
        what = {"text": text, "owner": owner, "until": until, "forgotten": count}
        event = self._bus.build("memory_purged", what, context, source="/plugins")
        entry = Audit(
            event.id,
            context.tenant,
            self._clock.now(),
            context.actor,
            "memory_purged",
            owner or "memory",
            None,
            encode(what),
        )
        await self._bus.commit(Batch(log=[event], audit=[entry]))
        return count

    # -- upkeep ------------------------------------------------------------------------------------------------------

    def start(self, tasks: TaskGroup) -> None:
        """Begin to measure what is new, and to forget what is too much."""
        tasks.start_soon(self._keep, name="eventcore memory")

    async def _keep(self) -> None:
        while True:
            self._bell = anyio.Event()
            try:
                wait = await self._look()
            except EmbeddingsFailed as error:
                log.warning("memories could not be measured: %s", error)
                wait = _AFTER_FAILURE
                self._bell = anyio.Event()  # another write does not make the service well
            except EventCoreError as error:
                log.error("memories could not be kept: %s", error)
                wait = 5.0
            with anyio.move_on_after(wait):
                await self._bell.wait()

    async def _look(self) -> float:
        expecting = self._clock.monotonic() < self._expected
        for tenant, written in list(self._written.items()):
            if expecting and written < min(_PAGE, self._settings.most):
                continue
            await self._trim(tenant)
            if expecting:
                self._written[tenant] = 0  # what is on its way now is counted once nothing is
            else:
                del self._written[tenant]
        if self._embeddings is not None:
            await self._measure(self._embeddings)
        return _SOON if expecting else _IDLE

    async def _measure(self, embeddings: Embeddings) -> None:
        while rows := await self._store.unmeasured(embeddings.model, MAX_TEXTS):
            texts = [f"{row.query}\n{row.raw_result.decode(errors='replace')}" for row in rows]
            vectors = await embeddings.vectors(texts)
            known = [
                replace(row, model=embeddings.model, vector=vector) for row, vector in zip(rows, vectors, strict=True)
            ]
            await self._store.commit(Batch(memory=known))

    async def _trim(self, tenant: str) -> None:
        """Forget the oldest of a tenant while it has more than it may."""
        most = self._settings.most
        count = sum(number for _, number, _ in await self._store.memory_owners(tenant))
        while count > most:
            rows = await self._store.oldest_memories(tenant, min(_PAGE, count - most))
            if not rows:
                return
            await self._store.commit(Batch(memory_done=[row.id for row in rows]))
            count -= len(rows)
