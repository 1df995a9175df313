"""What an engine is opened with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from eventcore.hooks.specs import HookSpec
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.faults import NoFaults
from eventcore.kernel.ids import SystemRandomness
from eventcore.kernel.ports import Clock, Faults, Metrics, Secrets, Store
from eventcore.kernel.settings import Settings


@dataclass(slots=True)
class Options:
    """Everything that can be chosen when an engine is opened; what is None is chosen by `rooms`.

    Attributes:
        home: the home's folder; None for an engine without one.
        store: a store object, or a URL: `memory:` or `sqlite:///path` (default: SQLite in a home, memory without).
        settings: in place of the home's `eventcore.toml`.
        environ: environment variables that may override settings; None takes the process's.
        hooks: hooks of the embedder's own, declared before plugins and hook files are loaded.
        quiet: open only to look. Nothing in flight is taken up, no timer fires, no other process is served, and neither
            `system_started` nor `system_stopped` is recorded.
    """

    home: Path | None = None
    store: Store | str | None = None
    settings: Settings | None = None
    tenant: str | None = None
    clock: Clock = field(default_factory=SystemClock)
    randomness: SystemRandomness = field(default_factory=SystemRandomness)
    faults: Faults = field(default_factory=NoFaults)
    metrics: Metrics | None = None
    secrets: Secrets | None = None
    environ: dict[str, str] | None = None
    hooks: tuple[HookSpec, ...] = ()
    quiet: bool = False


def sqlite_path(url: str, base: Path | None) -> Path:
    """The file of a `sqlite:///` URL. Three slashes are followed by a path relative to `base`, four by an absolute one.

    Raises:
        InvalidInput: it is no such URL.
    """
    prefix = "sqlite:///"
    if not url.startswith(prefix) or len(url) == len(prefix):
        raise InvalidInput(f"{url!r} is no store URL", hint="memory: or sqlite:///folder/events.db")
    path = Path(url.removeprefix(prefix))
    return path if path.is_absolute() or base is None else base / path
