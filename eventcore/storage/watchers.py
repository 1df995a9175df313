"""The listeners of a store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from eventcore.kernel.ports import CommitListener
from eventcore.kernel.records import LogEntry

_log = logging.getLogger("eventcore.store")


class Watchers:
    """Who is told of commits. A listener that fails is logged: it must never stop the writer."""

    def __init__(self) -> None:
        self._listeners: dict[object, CommitListener] = {}

    def add(self, listener: CommitListener) -> Callable[[], None]:
        """Tell `listener` from now on; return what stops that, which may be called more than once."""
        token = object()
        self._listeners[token] = listener

        def stop() -> None:
            self._listeners.pop(token, None)

        return stop

    def tell(self, entries: Sequence[LogEntry]) -> None:
        """Call every listener with the log entries of one commit."""
        for listener in tuple(self._listeners.values()):
            try:
                listener(entries)
            except Exception:  # noqa: BLE001 - isolation: whatever a listener does, the commit stands
                _log.exception("a listener of the store failed")
