"""Hook files: the operator's own trusted Python in `hooks/`, run in-process, as git runs its hooks.

A module function `on_<hook>` handles that hook; any other `on_<event>` subscribes to that event. There is no manifest.
Two names are set in the module before its code runs: `settings`, the table `[hooks.settings.<slug>]` with secrets
looked up, and `home`, the home's folder as text or None. A module that sets `DURABLE`, a list of events, misses none of
those, over restarts too.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from eventcore.bus.acks import Durable
from eventcore.bus.bus import Bus
from eventcore.bus.subscription import Subscription
from eventcore.hooks.breaker import Change
from eventcore.hooks.caller import Hooks
from eventcore.hooks.registry import Handler
from eventcore.hooks.specs import HookSpec, likely_slip
from eventcore.kernel.errors import EventCoreError, InvalidInput, NotFound, Problem
from eventcore.kernel.names import canonical_pattern, did_you_mean
from eventcore.kernel.ports import Clock
from eventcore.kernel.records import Batch

log = logging.getLogger("eventcore.hooks")

Stamp = tuple[tuple[str, int, int], ...]
#: The settings of a hook file by its slug, with secrets looked up. Raises InvalidInput where one is missing.
SettingsOf = Callable[[str], Mapping[str, Any]]


@dataclass(slots=True)
class HookFile:
    """One hook file, loaded or failed.

    Attributes:
        error: why it could not be loaded, or None. After a failed reload the code from before still runs.
        handlers, events: what it handles: handlers' names, and event types.
        warnings: functions whose names look like a slip.
        vanished: what it handled before the last reload and does not handle any more.
        degraded: why its handlers are not asked, or None.
        policy: whether its gates are of the policy tier.
        stamp: size and time of each of its files when they were read.
    """

    slug: str
    path: Path
    error: str | None = None
    handlers: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    degraded: str | None = None
    policy: bool = False
    stamp: Stamp = ()


@dataclass(slots=True)
class _Content:
    """What a module handles, before it is registered."""

    handlers: list[Handler] = field(default_factory=list)
    events: list[tuple[str, Callable[..., Any]]] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    durable: frozenset[str] = frozenset()


class HookFiles:
    """The hook files of one engine.

    Args:
        scope: a word of this engine's own, so that two engines in one process have modules of their own.
        settings: what to set as `settings` in a file's module.
        home: what to set as `home`.
    """

    def __init__(
        self, hooks: Hooks, bus: Bus, scope: str, *, settings: SettingsOf | None = None, home: str | None = None
    ) -> None:
        self._hooks, self._bus, self._scope, self._home = hooks, bus, scope, home
        self._settings: SettingsOf = settings or (lambda slug: {})
        self._files: dict[str, HookFile] = {}
        self._modules: dict[str, ModuleType] = {}
        self._subscriptions: dict[str, list[Subscription]] = {}
        hooks.specs.listeners.append(self._declared)
        hooks.room.owners.append(self._health_changed)

    def __iter__(self) -> Iterator[HookFile]:
        return iter(sorted(self._files.values(), key=lambda one: one.slug))

    def get(self, slug: str) -> HookFile:
        """One hook file.

        Raises:
            NotFound: there is none of this slug; names the nearest.
        """
        if slug not in self._files:
            raise NotFound(
                f"there is no hook file {slug!r}{did_you_mean(slug, self._files)}", hint="eventcore hooks list"
            )
        return self._files[slug]

    # -- loading -----------------------------------------------------------------------------------------------------

    def load(self, slug: str, path: Path, *, policy: bool = False) -> HookFile:
        """Load a hook file and register what it handles. A failure is recorded on the result, never raised.

        Args:
            path: `hooks/<slug>.py`, or the `__init__.py` of a folder.
            policy: the operator granted it the policy tier: its gates come first and fail closed.
        """
        self.unload(slug)
        found = self._files[slug] = HookFile(slug, path, policy=policy)
        self._take(found)
        return found

    async def reload(self, slug: str) -> HookFile:
        """Read a hook file again and put what it handles now in place of what it handled. All or nothing.

        If it cannot be loaded, the code from before goes on, and `error` says why. Functions that are gone are listed
        in `vanished`. Calls under way end with the code they began with; events that wait for a handler of the file are
        given up. Recorded as `plugin_reloaded` or `plugin_failed`.

        Raises:
            NotFound: there is no such hook file.
        """
        found = self.get(slug)
        before = {*found.handlers, *(f"{slug}.on_{event}" for event in found.events)}
        self._take(found)
        data: dict[str, Any] = {"plugin": slug, "file": str(found.path)}
        if found.error is None:
            now = {*found.handlers, *(f"{slug}.on_{event}" for event in found.events)}
            found.vanished = sorted(before - now)
            data |= {"handlers": sorted(now), "vanished": found.vanished}
            for name in found.vanished:
                log.warning("%s is gone from %s", name, found.path)
        else:
            data |= {"error": found.error, "still_running": sorted(before)}
            log.error("hook file %s could not be reloaded; what it was goes on: %s", found.path, found.error)
        what = "plugin_reloaded" if found.error is None else "plugin_failed"
        host = self._bus.context().acting_as("system", ())
        await self._bus.announce(what, data, host, source="/hooks", subject=slug)
        return found

    async def watch(self, clock: Clock, interval: float = 1.0) -> None:
        """Reload files that change, until cancelled. Looks every `interval` seconds (`[hooks] reload = true`)."""
        while True:
            await clock.sleep(interval)
            for slug, found in list(self._files.items()):
                if _stamp(found.path) == found.stamp:
                    continue
                try:
                    await self.reload(slug)
                except EventCoreError as error:
                    log.error("the reload of %s could not be recorded: %s", slug, error)

    def unload(self, slug: str) -> None:
        """Remove its handlers and subscriptions."""
        self._hooks.registry.unregister(slug)
        self._hooks.room.breaker.forget(slug)
        self._unsubscribe(slug)
        self._modules.pop(slug, None)
        if self._files.pop(slug, None) is not None:
            _take_modules(self._module_name(slug))

    def _take(self, found: HookFile) -> None:
        """Load the file's code and, if that goes well, put it in place of what was there."""
        name = self._module_name(found.slug)
        found.stamp = _stamp(found.path)
        before = _take_modules(name)
        try:
            module = _import(found.path, name, settings=dict(self._settings(found.slug)), home=self._home)
            content = self._content(found, module)
            self._register(found, content)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken file must not keep the engine from opening
            _take_modules(name)
            sys.modules.update(before)
            found.error = error.message if isinstance(error, EventCoreError) else f"{type(error).__name__}: {error}"
            found.error = f"{type(error).__name__}: {found.error}" if isinstance(error, EventCoreError) else found.error
            return
        self._modules[found.slug] = module
        found.error, found.degraded, found.vanished = None, None, []
        self._hooks.room.breaker.forget(found.slug)

    def _content(self, found: HookFile, module: ModuleType) -> _Content:
        functions = on_functions(module)
        if not functions:
            names = ", ".join(spec.name for spec in self._hooks.specs)
            raise InvalidInput("it has no function named on_<hook> or on_<event>", hint=f"hooks: {names}")
        content = _Content(durable=_durable(module))
        for name, function, line in functions:
            mark = getattr(function, "__eventcore_hook__", None)
            hook = mark.hook if mark and mark.hook else name
            if hook in self._hooks.specs:
                content.handlers.append(self._handler(found, hook, function, line))
                continue
            if slip := likely_slip(name):
                problem = Problem(str(found.path), line, name, f"did you mean {slip!r}?", warning=True)
                content.warnings.append(problem)
            content.events.append((name, function))
        return content

    def _handler(self, found: HookFile, hook: str, function: Callable[..., Any], line: int) -> Handler:
        return self._hooks.handler(
            hook,
            function,
            stage=None,
            owner=found.slug,
            tier="policy" if found.policy else "plugin",
            priority=None,
            place=f"{found.path}:{line}",
            line=line,
        )

    def _register(self, found: HookFile, content: _Content) -> None:
        """Put `content` in place of what the file handled. All that can be refused is looked at first."""
        for name, _ in content.events:
            try:
                canonical_pattern(name.removeprefix("on_"))
            except EventCoreError as error:
                raise InvalidInput(f"{name}: {error.message}") from None
        if missing := sorted(content.durable - {name.removeprefix("on_") for name, _ in content.events}):
            raise InvalidInput(f"DURABLE lists {missing[0]!r}, but there is no function on_{missing[0]}")
        self._hooks.registry.replace(found.slug, content.handlers)
        self._unsubscribe(found.slug)
        self._subscriptions[found.slug] = [
            self._bus.subscribe(
                name.removeprefix("on_"),
                function,
                name=f"{found.slug}.{name}",
                durable=Durable() if name.removeprefix("on_") in content.durable else None,
            )
            for name, function in content.events
        ]
        found.handlers = [handler.name for handler in content.handlers]
        found.events = [name.removeprefix("on_") for name, _ in content.events]
        found.warnings = content.warnings

    def _unsubscribe(self, slug: str) -> None:
        for subscription in self._subscriptions.pop(slug, []):
            self._bus.unsubscribe(subscription)

    # -- what the hooks tell -----------------------------------------------------------------------------------------

    def _declared(self, spec: HookSpec) -> None:
        """A hook was declared: functions of its name, so far taken for subscriptions to an event, are its handlers."""
        for slug, module in self._modules.items():
            found = self._files[slug]
            if spec.name.removeprefix("on_") in found.events:
                self._register(found, self._content(found, module))

    def _health_changed(self, owner: str, change: Change, reason: str) -> Batch | None:
        if (found := self._files.get(owner)) is not None:
            found.degraded = reason if change == "degraded" else None
        return None

    def _module_name(self, slug: str) -> str:
        return f"eventcore._loaded.hooks_{self._scope}.{slug.replace('-', '_')}"


def on_functions(module: ModuleType) -> list[tuple[str, Callable[..., Any], int]]:
    """(name, function, line) of the module's own handlers, in the order in which they stand in the file."""
    found = []
    for name, value in vars(module).items():
        if not callable(value) or inspect.isclass(value):
            continue
        marked = getattr(value, "__eventcore_hook__", None) is not None
        if (name.startswith("on_") or marked) and getattr(value, "__module__", None) == module.__name__:
            code = getattr(inspect.unwrap(value), "__code__", None)
            found.append((name, value, code.co_firstlineno if code else 0))
    return sorted(found, key=lambda item: item[2])


def _durable(module: ModuleType) -> frozenset[str]:
    """The events that the module says it must not miss."""
    listed = vars(module).get("DURABLE", ())
    if not isinstance(listed, list | tuple | set | frozenset) or not all(isinstance(one, str) for one in listed):
        raise InvalidInput('DURABLE is a list of event types, as ["order_created"]')
    return frozenset(one.removeprefix("on_") for one in listed)


def _stamp(path: Path) -> Stamp:
    """What changes when a hook file does: of a folder, all of its Python files."""
    files = sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]
    stamp = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        stamp.append((str(file), status.st_mtime_ns, status.st_size))
    return tuple(stamp)


def _take_modules(name: str) -> dict[str, ModuleType]:
    """Remove a module and those below it from `sys.modules`; what was removed."""
    names = [one for one in sys.modules if one == name or one.startswith(f"{name}.")]
    return {one: sys.modules.pop(one) for one in names}


def _import(path: Path, name: str, **given: Any) -> ModuleType:
    search = [str(path.parent)] if path.name == "__init__.py" else None
    # Not by the usual loader: it trusts bytecode whose source has the same second and size; a reload may be quicker.
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    vars(module).update(given)
    sys.modules[name] = module  # a folder's relative imports, dataclasses and pickles look here
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        exec(code, vars(module))  # noqa: S102 - the operator's own file
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
