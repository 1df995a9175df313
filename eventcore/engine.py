"""An open engine: its rooms, put together. Names no adapter and decides nothing; `eventcore.app` fills it."""

from __future__ import annotations

from dataclasses import dataclass

from eventcore.bus.archive import Archive
from eventcore.bus.bus import Bus
from eventcore.bus.history import History
from eventcore.hooks.caller import Hooks
from eventcore.hooks.files import HookFiles
from eventcore.kernel.ports import Clock, Metrics, Secrets, Store
from eventcore.kernel.settings import Settings
from eventcore.plugins.face import Plugins
from eventcore.workflows.face import Workflows
from eventcore.workflows.gate import Gate
from eventcore.workflows.runner import Runner


@dataclass(slots=True)
class Engine:
    """The rooms of one engine.

    Attributes:
        home: the home's folder, or None.
        problems: what could not be loaded when the engine was opened (workflow files, plugins in settings).
    """

    home: str | None
    tenant: str
    settings: Settings
    store: Store
    clock: Clock
    metrics: Metrics
    secrets: Secrets
    bus: Bus
    history: History
    archive: Archive
    hooks: Hooks
    hook_files: HookFiles
    plugins: Plugins
    workflows: Workflows
    runner: Runner
    gate: Gate
    problems: list[str]

    @property
    def idle(self) -> bool:
        """Whether no event is being handled and no run is being driven."""
        return self.runner.idle and self.gate.idle and self.bus.idle
