"""`core.plugins`: what users call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import EngineClosed, InvalidName
from eventcore.kernel.names import MAX_NAME
from eventcore.plugins.calls import Calls
from eventcore.plugins.configuring import Configuring
from eventcore.plugins.debugging import Debugging
from eventcore.plugins.forgetting import Forgetting
from eventcore.plugins.health import Health
from eventcore.plugins.hooking import Hooking
from eventcore.plugins.lifecycle import Lifecycle
from eventcore.plugins.logbook import Logbook
from eventcore.plugins.memory.memories import Memories
from eventcore.plugins.outside.files import FileRef, Files
from eventcore.plugins.packages.installing import Packages
from eventcore.plugins.plans import Plans
from eventcore.plugins.registry import HostIntent, PluginRecord, PluginRegistry
from eventcore.plugins.rescan import Changes, rescan
from eventcore.plugins.sandbox.container.launcher import Containers
from eventcore.plugins.wellbeing import Wellbeing
from eventcore.plugins.widgets import Widgets


class Plugins:
    """Plugins and in-process intents; reached as `core.plugins`.

    Args:
        debugging: runs calls under the debugger.
        hooking: keeps what the operator hooked to events.
        health: asks each plugin how it is.
        wellbeing: keeps what comes of that, and asks by itself.
        logbook: what plugins wrote to the log.
        on_demand: a plugin of the catalogue is enabled when it is first called by name. For engines without a home,
            whose embedder is the operator and has nowhere else to say so; such a plugin is granted nothing.
    """

    def __init__(
        self,
        *,
        registry: PluginRegistry,
        calls: Calls,
        lifecycle: Lifecycle,
        configuring: Configuring,
        packages: Packages,
        context: Callable[[], CallContext],
        changed: Callable[[], None],
        debugging: Debugging,
        hooking: Hooking,
        health: Health,
        wellbeing: Wellbeing,
        logbook: Logbook,
        on_demand: bool,
    ) -> None:
        self.registry, self.calls, self.lifecycle, self.configuring = registry, calls, lifecycle, configuring
        self.packages = packages
        self.debugging, self.hooking, self.health, self.logbook = debugging, hooking, health, logbook
        self.wellbeing = wellbeing
        #: Reads what the plugin folders hold into a registry; set by whoever looked there first.
        self.finder: Callable[[PluginRegistry], None] | None = None
        self._context, self._changed, self._on_demand = context, changed, on_demand
        #: What plugins have planned for later; set where the engine is put together.
        self.plans: Plans | None = None
        #: Removes all of that; set there too.
        self.forgetting: Forgetting | None = None
        #: Whose widget is shown; set there too.
        self.widgets = Widgets()
        #: Reads the files that plugins hand over.
        self.files = Files(calls.rules.allowance)
        #: The container tier; set by who opens the engine.
        self.containers: Containers | None = None

    def intent(self, name: str, function: Callable[[dict[str, Any]], Any], roles: Iterable[str] = ()) -> None:
        """Answer an intent with a function of the embedder's own: trusted, in-process, sync or async.

        Args:
            name: the intent; replaces a function that had it.
            function: gets the parameters as one dict, with `metadata` and `user_context` in it; returns JSON.
            roles: any one of them is needed to call it; none means anybody may.

        Raises:
            InvalidName: the name is empty or longer than 128 characters.
        """
        if not name or len(name) > MAX_NAME:
            raise InvalidName(f"{name!r} is no intent; it has 1 to {MAX_NAME} characters")
        self.registry.host[name] = HostIntent(name, function, tuple(roles))
        self._changed()

    async def run(
        self,
        intent: str,
        params: Mapping[str, Any] | None = None,
        *,
        roles: Iterable[str] | None = None,
        user: str | None = None,
        timeout: float | None = None,
        context: CallContext | None = None,
    ) -> Any:
        """Call an intent (or a plugin by name) and return its result. The call is recorded as `plugin_called`.

        Args:
            roles: the caller's roles; None means those of the current caller.
            user: who calls, for the record; None means the current caller.
            timeout: seconds; None means the plugin's own limit.

        Raises:
            UnknownIntent: nobody answers it.
            AccessDenied: none of the roles suffices.
            PluginFailed: it raised, crashed, or ran over its time limit; recorded as `plugin_error`.
        """
        caller = context or self._context()
        if roles is not None or user is not None:
            actor = f"user:{user}" if user else caller.actor
            caller = caller.acting_as(actor, caller.roles if roles is None else roles)
        await self._enable_on_demand(intent)
        return (await self.calls.run(intent, params or {}, caller, timeout=timeout)).result

    async def run_plugin(
        self, name: str, params: Mapping[str, Any], user_ctx: Mapping[str, Any]
    ) -> tuple[Any, str, str]:
        """Call a plugin and return `(result, stdout, stderr)`.

        Args:
            name: a plugin's name or intent.
            user_ctx: `user_id` and `roles` of the caller; without roles it has none.

        Raises:
            UnknownIntent, AccessDenied, PluginFailed: as `run`.
        """
        caller = self._context().acting_as(f"user:{user_ctx.get('user_id', 'anonymous')}", user_ctx.get("roles", ()))
        await self._enable_on_demand(name)
        done = await self.calls.run(name, params, caller, remember=True)
        return done.result, done.stdout, done.stderr

    async def ready(self, name: str) -> None:
        """Enable a plugin that was discovered and never switched on or off, if all that it requires is granted.

        For operators' own programs, which name the plugin they want. The catalogue of a home is left alone: shipped
        does not mean enabled.

        Raises:
            InvalidInput: it needs a permission that it was not granted; says which.
        """
        if self.registry.answering(name) is None and (record := self._waiting(name)) is not None:
            await self.lifecycle.enable(record, self._context())

    def reachable(self) -> list[str]:
        """Every intent that is answered, or would be after `ready`."""
        waiting = [record for record in self.registry if self._on_hold(record)]
        return sorted({*self.registry.intents(), *(name for one in waiting for name in one.described().intents)})

    def _waiting(self, name: str) -> PluginRecord | None:
        for record in self.registry:
            if self._on_hold(record) and name in (record.slug, record.described().name, *record.described().intents):
                return record
        return None

    def _on_hold(self, record: PluginRecord) -> bool:
        ours = record.origin != "catalogue" or self._on_demand
        return ours and record.state == "discovered" and record.manifest is not None

    async def rescan(self) -> Changes:
        """Look for plugins again: new folders, folders that are gone, and manifests and code that changed.

        Raises:
            EngineClosed: this engine was opened without looking for any.
        """
        if self.finder is None:
            raise EngineClosed("this engine was opened without looking for plugins")
        return await rescan(self.registry, self.lifecycle, self.finder, self._context())

    async def read_file(self, reference: Mapping[str, Any]) -> bytes:
        """The content of a file that a plugin handed over (`ctx.file`), from the reference in its result.

        Raises:
            InvalidInput: this is no such reference, or the path is a link now.
            NotFound: there is no such plugin, or the file is gone.
            PermissionDenied: the plugin may not use that folder any more.
            Conflict: the file was changed since.
        """
        return await self.files.read(self.registry.get(FileRef.of(reference).plugin), reference)

    @property
    def memories(self) -> Memories:
        """What is remembered.

        Raises:
            EngineClosed: the engine is not put together yet.
        """
        if self.calls.memories is None:
            raise EngineClosed
        return self.calls.memories

    async def _enable_on_demand(self, intent: str) -> None:
        if not self._on_demand or self.registry.answering(intent) is not None:
            return
        for record in self.registry:
            names = (record.slug, *record.manifest.answers) if record.manifest else ()
            if intent in names and record.origin == "catalogue" and record.state == "discovered":
                await self.lifecycle.enable(record, self._context())
                return

    def list(self) -> list[PluginRecord]:
        """Every plugin there is, by slug, broken ones included."""
        return [*self.registry]

    def get(self, name: str) -> PluginRecord:
        """One plugin, by slug, name or intent.

        Raises:
            NotFound: there is none.
        """
        return self.registry.get(name)

    async def enable(
        self, name: str, *, grants: Iterable[str] = (), context: CallContext | None = None
    ) -> PluginRecord:
        """Enable a plugin, granting it `grants`; what it does not have is said by the error.

        Raises:
            NotFound, InvalidManifest, InvalidInput, PluginFailed: see `Lifecycle.enable`.
        """
        record = self.registry.get(name)
        await self.lifecycle.enable(record, context or self._context(), grants)
        return record

    async def permit(
        self,
        name: str,
        *,
        grant: Iterable[str] = (),
        revoke: Iterable[str] = (),
        context: CallContext | None = None,
    ) -> PluginRecord:
        """Grant and revoke permissions of a plugin, at once. One that loses what it needs is disabled.

        Raises:
            NotFound, InvalidManifest, InvalidInput: see `Lifecycle.permit`.
        """
        record = self.registry.get(name)
        await self.lifecycle.permit(record, context or self._context(), grant, revoke)
        return record

    async def forget(self, name: str, *, context: CallContext | None = None) -> dict[str, int]:
        """Remove what the host keeps for a plugin: memories, plans and its own databases; how much that was.

        Raises:
            EngineClosed: the engine is not put together yet.
        """
        if self.forgetting is None:
            raise EngineClosed
        record = self.registry.find(name)
        return await self.forgetting.forget(context or self._context(), record.slug if record else name)

    async def disable(self, name: str, *, context: CallContext | None = None) -> PluginRecord:
        """Disable a plugin. Calls of its intents then fail with `UnknownIntent`, which says that it is disabled."""
        record = self.registry.get(name)
        await self.lifecycle.disable(record, context or self._context())
        return record
