"""A home for a test: plugins are installed into it, called in the real sandbox, and what happened is looked at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio

from eventcore.app import EventCore
from eventcore.app.plugin_api import hosting
from eventcore.app.plugin_api.place import Place
from eventcore.home.layout import Home
from eventcore.testing.clock import VirtualClock

#: How long due rows may stay in the store after a move of the clock; those of definitions that are gone stay for good.
_TAKEN_UP = 10.0


class HomeKit(os.PathLike[str]):
    """A home. It is a path too: `home / "workflows"`, `EventCore(home)`.

    Its engine is opened at the first use, on a thread of its own, so that the methods here simply wait: in plain tests
    as well as in async ones. `PluginRouter()` and the other plugin classes use the same engine.

    Attributes:
        root: the folder.
        clock: the engine's clock, after `virtual_time`; None means real time.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock: VirtualClock | None = None
        self._place = Place(root)
        self._link = hosting.Link(self._place)

    # -- plugins -----------------------------------------------------------------------------------------------------

    def install(self, folder: str | Path, *, grants: Iterable[str] = (), enable: bool = True) -> str:
        """Copy a plugin's folder into the home, enable it with these grants, and return its slug.

        Raises:
            InvalidManifest, InvalidInput, PluginFailed: it cannot be enabled.
        """
        source = Path(folder).resolve()
        target = self.root / "plugins" / source.name
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        self.perform("plugins.rescan")
        for row in self.perform("plugins.list"):
            if Path(row["path"]) == target:
                if enable:
                    self.perform("plugins.enable", name=row["slug"], grants=list(grants))
                return str(row["slug"])
        raise LookupError(f"{source} holds no manifest")

    def call(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        roles: Iterable[str] | None = None,
        user: str | None = None,
    ) -> Any:
        """Call an intent or a plugin in its sandbox and return its result; as the operator, unless `roles` or `user`
        say as whom.
        """
        return self.run(name, params, roles=roles, user=user)[0]

    def run(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        roles: Iterable[str] | None = None,
        user: str | None = None,
    ) -> tuple[Any, str, str]:
        """As `call`; returns `(result, stdout, stderr)`."""
        given = list(roles) if roles is not None else None
        done = self.perform("plugins.call", name=name, params=dict(params or {}), roles=given, user=user)
        return done["result"], done["stdout"], done["stderr"]

    # -- what happens ------------------------------------------------------------------------------------------------

    def emit(self, type: str, data: Any = None) -> dict[str, Any]:
        """Emit an event, and wait until all that it set off has come to rest; returns its receipt."""
        receipt = self.perform("events.emit", type=type, data=data)
        self.settle()
        return dict(receipt)

    def events(self, type: str | None = None, limit: int = 1000) -> list[dict[str, Any]]:
        """Recorded events, oldest first; of a type or pattern."""
        return list(self.perform("events.list", type=type, limit=limit))

    def settle(self, timeout: float = 30.0) -> None:
        """Wait until no event is being handled and no run is being driven.

        Raises:
            TimeoutError: it took longer than `timeout` seconds.
        """
        if not self.perform("settle", timeout=timeout)["idle"]:
            raise TimeoutError(f"the engine did not come to rest within {timeout:g} s")

    def perform(self, operation: str, **params: Any) -> Any:
        """Carry out any operation of the engine; see `eventcore.operations`."""
        return self._link.call(operation, params)

    # -- the engine --------------------------------------------------------------------------------------------------

    def virtual_time(self, clock: VirtualClock | None = None) -> VirtualClock:
        """Let time stand still until `advance`; closes an engine that is open."""
        self.close()
        self.clock = clock or VirtualClock()
        hosting.adopt(self._place, EventCore(self.root, clock=self.clock))
        return self.clock

    def advance(self, seconds: float) -> None:
        """Move virtual time forward, and wait until what was due is done."""
        if self.clock is None:
            raise RuntimeError("time is real here; call virtual_time() first")
        self.settle()
        self.clock.advance(seconds)
        hosting.hosted(self._place).run(_look_at_the_clock)
        self.settle()

    def restart(self) -> None:
        """Close the engine and open it again, as a restart of the host does. Virtual time goes on where it was."""
        if self.clock is not None:
            self.virtual_time(self.clock)
        else:
            self.close()

    def close(self) -> None:
        """Close the engine; the next use opens it again, in real time."""
        hosting.close(self._place)
        self.clock = None

    def __fspath__(self) -> str:
        return str(self.root)

    def __str__(self) -> str:
        return str(self.root)

    def __truediv__(self, name: str) -> Path:
        return self.root / name


async def _look_at_the_clock(core: EventCore) -> None:
    """Ring the bells of those who wait in real time for stored times, and wait until what is due was taken up.

    They look at the clock every half minute by themselves. Reaching into them here spares them a second way to wait.
    """
    engine, now = core.engine, core.engine.clock.now()
    keepers = (engine.runner._timers, engine.gate, engine.workflows.schedules, getattr(engine.plugins, "plans", None))
    with anyio.move_on_after(_TAKEN_UP):
        while True:
            for keeper in filter(None, keepers):
                keeper._bell.set()
            await anyio.sleep(0.01)
            if not await engine.store.timers(now, 1) and not await engine.store.schedules(now, 1):
                return


def make_home(folder: Path) -> HomeKit:
    """A new home in a folder, made if need be."""
    home, _ = Home.init(folder)
    return HomeKit(home.root)
