"""The ports: what the engine needs from outside itself. The docstrings are the contracts.

Each has at least two implementations that pass the same tests (`eventcore.testing`). Only `eventcore.app` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from eventcore.kernel.context import CallContext
from eventcore.kernel.records import Batch, Guard, LogEntry
from eventcore.kernel.storing import CommitListener as CommitListener
from eventcore.kernel.storing import Store as Store


class Clock(Protocol):
    """Time. `now` may jump, `monotonic` never does; durations are measured with the latter."""

    def now(self) -> float:
        """Seconds since the Unix epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time."""
        ...


class Ids(Protocol):
    """Makes identifiers."""

    def new(self) -> str:
        """A fresh id; later ones sort after earlier ones."""
        ...


class Randomness(Protocol):
    """Randomness, so that tests can fix it."""

    def random(self) -> float:
        """A float in [0, 1)."""
        ...

    def bits(self, count: int) -> int:
        """`count` random bits; not for secrets."""
        ...

    def token(self, size: int = 32) -> str:
        """A URL-safe secret of `size` random bytes."""
        ...


class Faults(Protocol):
    """Named fault points; see `eventcore.kernel.faults`."""

    def reach(self, point: str) -> None:
        """The code has come to `point`. May not return."""
        ...


class Metrics(Protocol):
    """Counters, histograms and gauges. Label values must come from a bounded set (slugs, types, outcomes)."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to the counter `name`."""
        ...

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record a value (seconds, bytes) in the histogram `name`."""
        ...

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set the gauge `name`."""
        ...

    def recorder(self, name: str, **labels: str) -> Callable[[float], None]:
        """What records under these labels, as `count`, `observe` or `gauge` does: for what would look them up often."""
        ...

    def collector(self, collect: Callable[[], None]) -> None:
        """Call `collect` before each reading: it records what is counted elsewhere because it happens too often."""
        ...

    def text(self) -> str:
        """Everything in the Prometheus text format."""
        ...


class Secrets(Protocol):
    """Named secrets. Their values never enter history, logs or errors."""

    def get(self, name: str) -> str | None:
        """The value, or None."""
        ...


@dataclass(slots=True)
class Invocation:
    """What came of calling an intent.

    Attributes:
        result: the JSON value that the handler returned; `raw`: the same as bytes, where they were made already.
        provider: the slug of the plugin that answered, or `host` for an in-process function.
        effects: staged changes (emits, memory, workflow starts) that the caller commits together with the outcome.
        guards: guards that those effects need.
        stdout, stderr: what the handler printed, capped.
        instead_of: the plugin that should have answered and could not, if another did in its place.
    """

    result: Any
    provider: str
    effects: Batch = field(default_factory=Batch)
    guards: tuple[Guard, ...] = ()
    stdout: str = ""
    stderr: str = ""
    instead_of: str | None = None
    raw: bytes | None = None


class Invoker(Protocol):
    """How a workflow reaches what answers its steps."""

    def knows(self, intent: str, tenant: str) -> bool:
        """Whether somebody answers this intent now."""
        ...

    def at_once(self, intent: str, tenant: str) -> bool:
        """Whether calling it runs to its end in one step, so that nothing can cut it off."""
        ...

    async def invoke(
        self, intent: str, params: Mapping[str, Any], context: CallContext, metadata: Mapping[str, Any]
    ) -> Invocation:
        """Call an intent and return its result with its staged effects, uncommitted.

        Raises:
            UnknownIntent: nobody answers it.
            AccessDenied: the context's roles do not suffice.
            PluginFailed: it raised, crashed, or ran over its time limit.
        """
        ...


class WorkflowStarter(Protocol):
    """How a plugin starts a workflow."""

    def knows(self, slug: str, tenant: str) -> bool:
        """Whether this slug is defined."""
        ...

    def stage_start(
        self, slug: str, inputs: Mapping[str, Any], context: CallContext, *, key: str | None = None
    ) -> tuple[Batch, tuple[Guard, ...], str]:
        """The changes that start a run, not committed, with their guards and the run's id.

        Raises:
            UnknownWorkflow: no such slug; the message names the places searched.
            InvalidPayload: the inputs do not fit the definition's schema.
        """
        ...


class Contributor(Protocol):
    """Adds changes to a commit before it is made: the trigger matcher of workflows is one."""

    def contribute(self, entries: Sequence[LogEntry]) -> tuple[Batch, tuple[Guard, ...]] | None:
        """What else must be in the commit that holds these log entries, or None. Shown its own additions as well."""
        ...


#: Answers a request that plugin code made through its `ctx`: (method, params) -> JSON value.
HostApi = Callable[[str, dict[str, Any]], Any]


class Worker(Protocol):
    """One running instance of a plugin's code, wherever it runs (subprocess, container, in-process by trust)."""

    @property
    def alive(self) -> bool:
        """Whether it can still be called."""
        ...

    async def call(
        self,
        kind: str,
        params: dict[str, Any],
        *,
        timeout: float,
        host: HostApi | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Ask the worker for something and wait.

        Args:
            kind: `load`, `run`, `hook`, `event`, `command`, `health` or `cleanup`.
            params: JSON, as that kind needs it.
            timeout: seconds; when they are over the worker is killed.
            host: answers the requests that the code makes while it runs. An async function; its errors are
                handed to the plugin's code.
            context: `tenant`, `actor` and `permissions`, as `ctx` tells them to the code.

        Returns:
            `{"result": JSON, "stdout": str, "stderr": str}`.

        Raises:
            PluginFailed: the code raised; `kind` and `trace` tell what.
            PluginTimeout: it ran over; the worker is dead.
            Interrupted: the worker died under it.
        """
        ...

    async def close(self, grace: float = 5.0) -> None:
        """Let running calls finish for at most `grace` seconds, call the plugin's `cleanup`, and end the process."""
        ...
