"""Testing a plugin's functions in this process: no sandbox, no engine, and a `ctx` that only notes what it is asked."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from eventcore.plugins.manifest import read_manifest
from eventcore.sdk import Answer, PermissionDenied, bind

_MANIFESTS = ("plugin_manifest.json", "plugin.yaml", "plugin.toml")


@contextmanager
def plugin_package(folder: str | Path, package: str | None = None) -> Iterator[str]:
    """Make a plugin's code importable for the `with` block, without importing any of it; gives its module's name.

    Arguments and errors are those of `plugin_code`.
    """
    folder = Path(folder).resolve()
    file = next((folder / name for name in _MANIFESTS if (folder / name).is_file()), folder / _MANIFESTS[0])
    manifest = read_manifest(file)
    name = package or manifest.slug.replace("-", "_")
    if name in sys.modules:
        raise ImportError(f"a module {name!r} is loaded already; give another package name")
    spec = importlib.util.spec_from_loader(name, None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        yield ".".join((name, *Path(manifest.entry_file).with_suffix("").parts))
    finally:
        for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            del sys.modules[loaded]


@contextmanager
def plugin_code(folder: str | Path, package: str | None = None) -> Iterator[ModuleType]:
    """The module of a plugin's code, imported as `PACKAGE.handler` (or what its manifest names) for the `with` block.

    Its relative imports work, and so does `patch("PACKAGE.handler.function")`.

    Args:
        folder: the plugin's folder.
        package: default its slug, with underscores.

    Raises:
        InvalidManifest: its manifest cannot be read. ImportError: a module of the package's name is loaded already.
    """
    with plugin_package(folder, package) as module:
        yield importlib.import_module(module)


class RecordedContext:
    """What stands behind `ctx` in a test of a plugin's functions. Nothing is refused unless the test says so.

    Args:
        config: the plugin's settings.
        answers: what to answer by the name of the host's service (`request`, `http.request`, ...): a value, or a
            function of the parameters. `emit` and `memory.*` answer by themselves.
        denied: services that are refused with `PermissionDenied`.
        tenant, actor, permissions, replay, attempt: as `ctx` shows them.

    Attributes:
        asked: every request, as (service, parameters), in order.
        emitted: (type, data) of each emit. memories: what was written, oldest first. logged: (level, message).
    """

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        answers: Mapping[str, Any] | None = None,
        denied: tuple[str, ...] = (),
        tenant: str = "default",
        actor: str = "user:tester",
        permissions: frozenset[str] = frozenset(),
        replay: bool = False,
        attempt: int = 1,
    ) -> None:
        self.config: Mapping[str, Any] = config or {}
        self.tenant, self.actor, self.permissions = tenant, actor, permissions
        self.replay, self.attempt = replay, attempt
        self._answers, self._denied = answers or {}, denied
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.emitted: list[tuple[str, Any]] = []
        self.memories: list[dict[str, Any]] = []
        self.logged: list[tuple[str, str]] = []

    def ask(self, method: str, params: dict[str, Any]) -> Answer[Any]:
        """Answer a request of `ctx`."""
        params = json.loads(json.dumps(params))  # what is not JSON fails here as it would on its way to the host
        self.asked.append((method, params))
        if method in self._denied:
            raise PermissionDenied(f"{method} is denied in this test")
        if method in self._answers:
            answer = self._answers[method]
            return Answer(answer(params) if callable(answer) else answer)
        own: Callable[[dict[str, Any]], Any] | None = {
            "emit": self._emit,
            "memory.write": self.memories.append,
            "memory.read": self._read,
        }.get(method)
        return Answer(own(params) if own is not None else None)

    def tell(self, level: str, message: str, logger: str = "") -> None:
        """Note a log line."""
        self.logged.append((level, message))

    def _emit(self, params: dict[str, Any]) -> dict[str, Any]:
        self.emitted.append((params["type"], params.get("data")))
        return {"id": f"event-{len(self.emitted)}", "position": None}

    def _read(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        words = str(params.get("query", "")).casefold().split()
        found = [one for one in reversed(self.memories) if all(word in json.dumps(one).casefold() for word in words)]
        return found[: int(params.get("limit", 5))]


@contextmanager
def plugin_context(**options: Any) -> Iterator[RecordedContext]:
    """Let `ctx` note what it is asked, inside the `with` block. Takes what `RecordedContext` takes."""
    context = RecordedContext(**options)
    with bind(context):
        yield context
