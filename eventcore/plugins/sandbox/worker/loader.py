"""Imports a plugin's code and finds out what it registers."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from eventcore.plugins.sandbox.frames import NotJSON, encode
from eventcore.plugins.sandbox.worker.prompt import Prompt, PromptError
from eventcore.sdk import HookMark, ctx, mark_of

_MOST_FUNCTIONS = 500
_PARENTS = ("eventcore._loaded", "eventcore._loaded.plugins")


class LoadError(Exception):
    """The plugin's code does not give what was asked of it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Handler:
    """A function of the plugin, looked at once so that a call need not."""

    function: Callable[..., Any]
    blocking: bool
    wants_ctx: bool
    most: int | None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Handler:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            parameters = ()  # type: ignore[assignment]  # a function of C code; it is given what there is
            return cls(function, not _is_async(function), False, None)
        kinds = {p.kind for p in parameters}
        wants_ctx = any(p.name == "ctx" and p.kind is not p.POSITIONAL_ONLY for p in parameters)
        positional = [
            p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "ctx"
        ]
        most = None if inspect.Parameter.VAR_POSITIONAL in kinds else len(positional)
        return cls(function, not _is_async(function), wants_ctx, most)

    def __call__(self, args: list[Any]) -> Any:
        """Call it. A function that names fewer parameters than there are arguments gets the first ones."""
        if self.most is not None and len(args) > self.most:
            args = args[: self.most]
        return self.function(*args, ctx=ctx) if self.wants_ctx else self.function(*args)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class Plugin:
    """The loaded code of a plugin."""

    def __init__(self, module: ModuleType, params: Mapping[str, Any]) -> None:
        self.module = module
        self.folder = Path(params["dir"])
        self.prompt = _prompt(self.folder)
        self.warnings: list[str] = []
        self.instance: Any = None
        self._handlers: dict[str, Handler] = {}
        self._known_hooks = frozenset(params["hooks"])
        self._entry = params["entry_point"]
        if params["class_name"]:
            self.instance = self._instantiate(params["class_name"], params["config"])

    def handler(self, kind: str, params: Mapping[str, Any]) -> tuple[Handler, list[Any]] | None:
        """What answers a call, with its arguments; None where the plugin has nothing for an optional kind."""
        match kind:
            case "run":
                return self._required(self._entry_name(), "NoEntryPoint"), [self.filled(params["params"])]
            case "hook":
                return self._required(params["function"], "NoSuchFunction"), params["args"]
            case "event":
                return self._required(params["function"], "NoSuchFunction"), [params["event"]]
            case "command":
                return self._required("on_command", "NoSuchFunction"), [params["command"], params["args"]]
            case "health" | "cleanup" | "initialize":
                name = "health_check" if kind == "health" else kind
                # A module's own `initialize` is a function like any other; only a class has the word in its contract.
                found = None if kind == "initialize" and self.instance is None else self._find(name)
                return (found, []) if found else None
            case _:
                raise LoadError("UnknownKind", f"the worker knows no calls of the kind {kind!r}")

    def filled(self, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters of a call with the rendered prompt, where the plugin has one."""
        if self.prompt is None:
            return params
        try:
            return self.prompt.filled(params)
        except PromptError as error:
            raise LoadError("PromptFailed", str(error)) from None

    def describe(self) -> dict[str, Any]:
        """What the plugin registers."""
        hooks, events = self._marked
        return {
            "hooks": hooks,
            "events": events,
            "entry": self._find(self._entry_name()) is not None,
            "class": self.instance is not None,
            "commands": self._find("on_command") is not None,
            "health": self._find("health_check") is not None,
            "functions": self._functions(),
            "info": self._info(),
            "prompt": self.prompt is not None,
            "sync": sorted(name for name, found in self._callable.items() if found.blocking),
            "warnings": self.warnings,
        }

    @property
    def plain(self) -> bool:
        """Whether no function that the host may call is async."""
        found = [*self._callable.values(), self._find("initialize")]
        return all(one is None or one.blocking for one in found)

    @cached_property
    def _callable(self) -> dict[str, Handler]:
        """What the host calls by name, where it is there."""
        hooks, events = self._marked
        names = [self._entry_name(), "on_command", "health_check", "cleanup"]
        names += [one["function"] for one in (*hooks, *events)]
        return {name: found for name in names if (found := self._find(name))}

    def _entry_name(self) -> str:
        return "execute" if self.instance is not None else self._entry

    def _required(self, name: str, kind: str) -> Handler:
        found = self._find(name)
        if found is None:
            where = type(self.instance).__name__ if self.instance is not None else self.module.__name__
            raise LoadError(kind, f"there is no function {name!r} in {where.rpartition('.')[2]}")
        return found

    def _find(self, name: str) -> Handler | None:
        if name not in self._handlers:
            function = getattr(self.instance, name, None) if self.instance is not None else None
            if function is None:
                function = getattr(self.module, name, None)
            if not callable(function) or inspect.isclass(function):
                return None
            self._handlers[name] = Handler.of(function)
        return self._handlers[name]

    def _instantiate(self, name: str, config: dict[str, Any]) -> Any:
        cls = getattr(self.module, name, None)
        if not inspect.isclass(cls):
            file = Path(self.module.__file__ or "").name
            raise LoadError("NoSuchClass", f"there is no class {name!r} in {file}")
        try:
            takes_config = bool(inspect.signature(cls).parameters)
        except (TypeError, ValueError):
            takes_config = False
        make: Callable[..., Any] = cls
        return make(config) if takes_config else make()

    @cached_property
    def _marked(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        hooks: list[dict[str, Any]] = []
        events: list[dict[str, Any]] = []
        seen: set[int] = set()
        found = [(name, value) for name, value in vars(self.module).items() if inspect.isroutine(value)]
        for name, function in sorted(found, key=lambda item: _line(item[1])):
            mark = mark_of(function)
            hook = mark.hook if mark else name
            if id(function) in seen or not (mark or (name.startswith("on_") and name != "on_command")):
                continue
            seen.add(id(function))
            if mark or hook in self._known_hooks:
                hooks.append(_describe_hook(hook, name, function, mark or HookMark("reply")))
            else:
                events.append({"event": name.removeprefix("on_"), "function": name, "line": _line(function)})
        return hooks, events

    def _functions(self) -> list[str]:
        found = {name for name, value in vars(self.module).items() if inspect.isroutine(value)}
        return sorted(name for name in found if not name.startswith("_"))[:_MOST_FUNCTIONS]

    def _info(self) -> Any:
        info = getattr(self.module, "__plugin_info__", None)
        if info is None:
            return None
        try:
            encode(info)
        except NotJSON as error:
            self.warnings.append(f"__plugin_info__ is left out: {error}")
            return None
        return info


def _prompt(folder: Path) -> Prompt | None:
    try:
        return Prompt.of(folder)
    except PromptError as error:
        raise LoadError("PromptInvalid", str(error)) from None


def _describe_hook(hook: str, name: str, function: Any, mark: HookMark) -> dict[str, Any]:
    placed = {key: value for key, value in asdict(mark).items() if key != "hook"}
    return {"hook": hook, "function": name, "line": _line(function), **placed}


def _line(function: Any) -> int:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_firstlineno if code is not None else 0


def load(params: Mapping[str, Any]) -> Plugin:
    """Import the plugin's module as part of a package of its own, and make its class if it has one.

    The package is `eventcore._loaded.plugins.<slug>` and its `__path__` is the plugin's folder: relative imports and
    `importlib.resources` work, whatever the folder is called, and `sys.path` never holds it.

    Raises:
        LoadError: file or class is missing. Whatever the code raises comes through.
    """
    folder = Path(params["dir"])
    for path in params["paths"]:
        if path not in sys.path:
            sys.path.append(path)
    sys.dont_write_bytecode = True  # from here on: nothing is written into a plugin's folder
    file = folder / params["module"]
    if not file.is_file():
        raise LoadError("NoSuchModule", f"the plugin's folder has no file {params['module']!r}")
    package = "eventcore._loaded.plugins." + params["slug"].replace("-", "_")
    _make_package(package, folder)
    parts = Path(params["module"]).with_suffix("").parts
    name = package if parts == ("__init__",) else ".".join((package, *parts))
    try:
        return Plugin(importlib.import_module(name), params)
    except ModuleNotFoundError as error:
        own = error.name and (folder / f"{error.name.partition('.')[0]}.py").is_file()
        if own:
            error.add_note(f"{error.name}.py lies in the plugin's folder: write `from . import {error.name}`")
            error.msg += f" (it lies in the plugin's folder: write `from . import {error.name}`)"
        raise


def _make_package(name: str, folder: Path) -> None:
    for parent in _PARENTS:
        module = ModuleType(parent)
        module.__path__ = []
        sys.modules.setdefault(parent, module)
    init = folder / "__init__.py"
    if init.is_file():
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(folder)])
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[name] = package
        spec.loader.exec_module(package)
        return
    spec = importlib.util.spec_from_loader(name, _Folder(folder), is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = importlib.util.module_from_spec(spec)


class _Folder(Loader):
    """The loader of a package that has no code: it only lets `importlib.resources` find the plugin's data files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        pass

    def get_resource_reader(self, name: str) -> _Folder:
        return self

    def files(self) -> Path:
        return self._folder
