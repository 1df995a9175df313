"""Payloads that are too large for the log, as the memory store keeps them."""

from __future__ import annotations

from eventcore.kernel.event import Event


class Blobs:
    """By tenant and hash, each with the number of events that name it: with the last of them it goes."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[bytes, int]] = {}

    def add(self, event: Event) -> None:
        """Keep what a new event names."""
        if event.blob is not None and event.body is not None:
            _, named = self._kept.get((event.tenant, event.blob), (b"", 0))
            self._kept[event.tenant, event.blob] = event.body, named + 1

    def remove(self, event: Event) -> None:
        """The event leaves the history."""
        if event.blob is not None and (found := self._kept.pop((event.tenant, event.blob), None)):
            raw, named = found
            if named > 1:
                self._kept[event.tenant, event.blob] = raw, named - 1

    def get(self, tenant: str, digest: str) -> bytes | None:
        found = self._kept.get((tenant, digest))
        return None if found is None else found[0]

    @property
    def size(self) -> int:
        """Bytes in use."""
        return sum(len(raw) for raw, _ in self._kept.values())
