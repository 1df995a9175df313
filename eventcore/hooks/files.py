"""Hook files: the operator's own trusted Python in `hooks/`, run in-process, as git runs its hooks.

A module function `on_<hook>` handles that hook; any other `on_<event>` subscribes to that event. There is no manifest.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from eventcore.bus.bus import Bus
from eventcore.bus.subscription import Subscription
from eventcore.hooks.caller import Hooks
from eventcore.hooks.specs import HOOKS
from eventcore.kernel.errors import EventCoreError, InvalidInput, Problem
from eventcore.kernel.names import CORE_EVENTS


@dataclass(slots=True)
class HookFile:
    """One hook file, loaded or failed.

    Attributes:
        error: why it could not be loaded, or None.
        warnings: functions whose names look like a slip.
    """

    slug: str
    path: Path
    error: str | None = None
    handlers: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


class HookFiles:
    """The hook files of one engine.

    Args:
        scope: a word of this engine's own, so that two engines in one process have modules of their own.
    """

    def __init__(self, hooks: Hooks, bus: Bus, scope: str) -> None:
        self._hooks, self._bus, self._scope = hooks, bus, scope
        self._files: dict[str, HookFile] = {}
        self._subscriptions: dict[str, list[Subscription]] = {}

    def __iter__(self) -> Any:
        return iter(sorted(self._files.values(), key=lambda one: one.slug))

    def load(self, slug: str, path: Path, *, policy: bool = False) -> HookFile:
        """Load a hook file and register what it handles. A failure is recorded on the result, never raised.

        Args:
            path: `hooks/<slug>.py`, or the `__init__.py` of a folder.
            policy: the operator granted it the policy tier: its gates come first and fail closed.
        """
        self.unload(slug)
        found = self._files[slug] = HookFile(slug, path)
        try:
            module = _import(path, f"eventcore._loaded.hooks_{self._scope}.{slug.replace('-', '_')}")
            self._register(found, module, policy)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken file must not keep the engine from opening
            self.unload(slug)
            found.error = f"{type(error).__name__}: {error}"
            self._files[slug] = found
        return found

    def unload(self, slug: str) -> None:
        """Remove its handlers and subscriptions."""
        self._hooks.registry.unregister(slug)
        for subscription in self._subscriptions.pop(slug, []):
            self._bus.unsubscribe(subscription)
        found = self._files.pop(slug, None)
        if found is not None:
            name = f"eventcore._loaded.hooks_{self._scope}.{slug.replace('-', '_')}"
            for module in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                del sys.modules[module]

    def _register(self, found: HookFile, module: ModuleType, policy: bool) -> None:
        functions = on_functions(module)
        if not functions:
            raise InvalidInput("it has no function named on_<hook> or on_<event>", hint=f"hooks: {', '.join(HOOKS)}")
        for name, function, line in functions:
            mark = getattr(function, "__eventcore_hook__", None)
            hook = mark.hook if mark and mark.hook else name
            place = f"{found.path}:{line}"
            if hook in HOOKS:
                handler = self._hooks.register(
                    hook, function, owner=found.slug, tier="policy" if policy else "plugin", place=place, line=line
                )
                found.handlers.append(handler.name)
                continue
            if slip := likely_slip(name):
                found.warnings.append(Problem(str(found.path), line, name, f"did you mean {slip!r}?", warning=True))
            self._subscribe(found, name, function)

    def _subscribe(self, found: HookFile, name: str, function: Callable[..., Any]) -> None:
        event = name.removeprefix("on_")
        try:
            subscription = self._bus.subscribe(event, function, name=f"{found.slug}.{name}")
        except EventCoreError as error:
            raise InvalidInput(f"{name}: {error.message}") from None
        self._subscriptions.setdefault(found.slug, []).append(subscription)
        found.events.append(event)


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


def likely_slip(name: str) -> str | None:
    """The hook or core event that `name` (of a function that is neither) most likely meant."""
    known = [*HOOKS, *(f"on_{event}" for event in sorted(CORE_EVENTS))]
    if name in known:
        return None
    # Strict, and without what all of them share: most functions on_<event> are meant for somebody's own event.
    found = get_close_matches(name.removeprefix("on_"), [one.removeprefix("on_") for one in known], n=1, cutoff=0.85)
    return f"on_{found[0]}" if found else None


def _import(path: Path, name: str) -> ModuleType:
    search = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a folder's relative imports, dataclasses and pickles look here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
