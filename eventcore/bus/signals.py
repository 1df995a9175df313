"""The trusted in-process tap: `core.signals.workflow_started.connect(fn)`.

These are blinker signals, so anything that speaks blinker can listen. The sender is the tenant, the one keyword is
`event`. Receivers run after the event is committed, one after the other, in order of connection; sync ones on the event
loop's thread, so they must be quick; async ones are cut off after ten seconds. A receiver that raises is logged and
disturbs nobody: blinker's own `send_async` stops at the first exception and is unordered, which is why it is not used.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import anyio
import blinker

from eventcore.bus.calling import is_async
from eventcore.bus.current import serving
from eventcore.kernel.context import CallContext
from eventcore.kernel.event import Event
from eventcore.kernel.names import event_type

log = logging.getLogger("eventcore.signals")

_BUFFER = 4096
#: How long an async receiver may take for one event, in seconds: those after it wait for it.
RECEIVER_SECONDS = 10.0


class _InOrder(set[Any]):
    """A set that iterates in order of insertion: blinker leaves the order of receivers undefined, we do not."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._order: dict[Any, None] = {}
        super().__init__()
        for item in items:
            self.add(item)

    def add(self, item: Any) -> None:
        super().add(item)
        self._order[item] = None

    def discard(self, item: Any) -> None:
        super().discard(item)
        self._order.pop(item, None)

    def remove(self, item: Any) -> None:
        super().remove(item)
        del self._order[item]

    def copy(self) -> _InOrder:
        return _InOrder(self._order)

    def clear(self) -> None:
        super().clear()
        self._order.clear()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)

    def __or__(self, other: Any) -> _InOrder:
        return _InOrder([*self, *other])


class OrderedSignal(blinker.NamedSignal):
    """A blinker signal whose receivers are kept in the order in which they were connected."""

    set_class = _InOrder
    #: Told that somebody may listen from now on.
    on_connect: Callable[[], object] | None = None

    def connect(self, receiver: Any, sender: Any = blinker.ANY, weak: bool = False) -> Any:
        """As blinker's, but holding the receiver strongly: a weak one would silently drop lambdas and closures."""
        if self.on_connect is not None:
            self.on_connect()
        return super().connect(receiver, sender, weak)

    def disconnect(self, receiver: Any, sender: Any = blinker.ANY) -> None:
        super().disconnect(receiver, sender)

    def receivers_for(self, sender: Any) -> Generator[Any, None, None]:
        """As blinker's; what is connected may be any hashable object, not only a function."""
        yield from super().receivers_for(sender)


class Signals:
    """Signals by event type, as attributes or by `signal(name)`."""

    def __init__(self, bus: object) -> None:
        self._bus = bus
        self._on_connect: Callable[[], object] | None = None
        self._signals: dict[str, OrderedSignal] = {}
        self._queue: deque[Event] = deque(maxlen=_BUFFER)
        self._bell = anyio.Event()
        self._busy = False

    def watch_receivers(self, connecting: Callable[[], object]) -> None:
        """Call `connecting` whenever somebody may listen to a signal from now on."""
        self._on_connect = connecting

    @property
    def tapped(self) -> bool:
        """Whether anybody ever asked for a signal."""
        return bool(self._signals)

    def signal(self, type: str) -> OrderedSignal:
        """The signal of one event type.

        Raises:
            InvalidName: it is no event type.
        """
        name = event_type(type)
        found = self._signals.setdefault(name, OrderedSignal(name))
        found.on_connect = self._on_connect
        return found

    def __getattr__(self, name: str) -> OrderedSignal:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.signal(name)

    def heard(self, type: str) -> bool:
        """Whether anybody listens to this type."""
        found = self._signals.get(type)
        return found is not None and bool(found.receivers)

    def put(self, event: Event) -> None:
        """Hand a committed event to the tap; at most 4,096 wait, then the oldest is dropped and logged."""
        if len(self._queue) == _BUFFER:
            log.warning("the in-process tap is %s events behind; dropping %s", _BUFFER, self._queue[0].id)
        self._queue.append(event)
        self._bell.set()

    @property
    def idle(self) -> bool:
        return not self._queue and not self._busy

    async def run(self) -> None:
        """Serve the tap until cancelled."""
        while True:
            await self._bell.wait()
            self._bell = anyio.Event()
            while self._queue:
                self._busy = True
                await self._send(self._queue.popleft())
            self._busy = False

    async def _send(self, event: Event) -> None:
        context = CallContext(tenant=event.tenant, actor="tap", roles=frozenset(), cause=event.cause(hop="tap"))
        for receiver in list(self._signals[event.type].receivers_for(event.tenant)):
            try:
                with serving(self._bus, context):
                    if is_async(receiver):
                        await self._wait_for(receiver, event)
                    else:
                        receiver(event.tenant, event=event)
            except Exception:
                log.exception("a receiver of the signal %s failed", event.type)

    async def _wait_for(self, receiver: Any, event: Event) -> None:
        with anyio.move_on_after(RECEIVER_SECONDS) as limit:
            await receiver(event.tenant, event=event)
        if limit.cancelled_caught:
            log.error("a receiver of the signal %s ran over its %g s and was cut off", event.type, RECEIVER_SECONDS)
