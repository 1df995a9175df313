"""What an enabled plugin's code is connected to: hooks, chat commands and events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from eventcore.bus.acks import Durable, Nak, Term
from eventcore.bus.bus import Bus
from eventcore.bus.durable_room import stored_name
from eventcore.bus.subscription import Subscription
from eventcore.hooks.caller import Hooks
from eventcore.hooks.registry import Answer, ChatCommand, Handler
from eventcore.hooks.specs import HookSpec, likely_slip
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import Conflict, InvalidInput, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.names import canonical_pattern
from eventcore.plugins import roles
from eventcore.plugins.calls import Calls
from eventcore.plugins.host_api import HostServices
from eventcore.plugins.introspection import differences
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord, PluginRegistry
from eventcore.plugins.sandbox.supervisor import Supervisor
from eventcore.sdk.verdicts import Deny, Replace, Stop

log = logging.getLogger("eventcore.plugins")

#: The longest delay that a plugin may ask for with Nak, in seconds: 30 days.
MAX_DELAY = 30 * 86400

_VERDICTS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "deny": lambda body: Deny(str(body.get("reason", ""))),
    "replace": lambda body: Replace(body.get("value")),
    "stop": lambda body: Stop(body.get("value")),
}


class Connections:
    """Connects functions of plugins, and cuts them off again."""

    def __init__(
        self,
        registry: PluginRegistry,
        supervisor: Supervisor,
        calls: Calls,
        services: HostServices,
        hooks: Hooks,
        bus: Bus,
    ) -> None:
        self._registry, self._supervisor, self._calls, self._services = registry, supervisor, calls, services
        self._hooks, self._bus = hooks, bus
        self._subscriptions: dict[str, list[Subscription]] = {}
        hooks.specs.listeners.append(self._hook_declared)
        #: (event, function) of what the operator hooked, by slug; set by whoever keeps that.
        self.hooked: Callable[[str], Sequence[tuple[str, str]]] = lambda slug: ()

    def connect(self, record: PluginRecord) -> None:
        """Connect everything that the plugin registered.

        Raises:
            InvalidInput: its manifest lists a hook, a durable event or commands that its code has no function for.
        """
        self._hooks.registry.register(self._handlers(record), self._commands(record))
        self._subscribe(record)
        self._warn_of_slips(record)

    async def drop_removed(self, record: PluginRecord) -> None:
        """Give up the places of durable subscriptions that the manifest says are gone for good (`events.removed`)."""
        for event in record.described().removes_subscriptions:
            try:
                await self._bus.places.drop(stored_name(f"on_{event}", record.slug))
            except NotFound:
                continue  # it was given up before, or never there
            except Conflict as error:
                log.warning("%s: events.removed: %s", record.slug, error)

    def regranted(self, record: PluginRecord) -> None:
        """The plugin's grants changed: `on_message` comes or goes with `chat_access`.

        Subscriptions stay as they are: what they may see is asked for each event.
        """
        self._hooks.registry.replace(record.slug, self._handlers(record), self._commands(record))

    def cut(self, record: PluginRecord) -> None:
        """Call nothing of the plugin any more. Places of durable subscriptions stay."""
        self._hooks.registry.unregister(record.slug)
        self._unsubscribe(record)

    def resubscribe(self, record: PluginRecord) -> None:
        """Subscribe an enabled plugin's functions anew; places of durable subscriptions stay."""
        self._unsubscribe(record)
        self._subscribe(record)

    def _unsubscribe(self, record: PluginRecord) -> None:
        for subscription in self._subscriptions.pop(record.slug, []):
            self._bus.unsubscribe(subscription)

    def _handlers(self, record: PluginRecord) -> list[Handler]:
        manifest, registered = record.described(), record.registered or {}
        found = {item["function"]: item for item in registered.get("hooks", ())}
        found |= {item["function"]: item for item in self._declared_hooks(record)}
        if manifest.hooks is not None:
            self._check_listed(record, manifest.hooks, found)
        handlers = []
        for item in found.values():
            if manifest.hooks is not None and item["hook"] not in manifest.hooks:
                log.warning("%s: %s is not listed under hooks and is not called", record.slug, item["function"])
                continue
            if item["hook"] == "on_message" and not self._reads_chat(record):
                log.warning("%s: on_message is not called without chat_access", record.slug)
                continue
            handlers.append(self._handler(record, item))
        return handlers

    def _declared_hooks(self, record: PluginRecord) -> list[dict[str, Any]]:
        """Functions of hooks that the embedder declared. The worker knows the standard ones only, and says `events`."""
        plain = {"stage": "reply", "priority": 0, "before": (), "after": (), "recheck": False}
        return [
            {**plain, **item, "hook": f"on_{item['event']}"}
            for item in (record.registered or {}).get("events", ())
            if f"on_{item['event']}" in self._hooks.specs
        ]

    def _hook_declared(self, spec: HookSpec) -> None:
        for record in self._registry:
            events = [item["event"] for item in (record.registered or {}).get("events", ())]
            if record.enabled and spec.name.removeprefix("on_") in events:
                self._hooks.registry.replace(record.slug, self._handlers(record), self._commands(record))
                self._unsubscribe(record)
                self._subscribe(record)

    def _warn_of_slips(self, record: PluginRecord) -> None:
        for item in (record.registered or {}).get("events", ()):
            if meant := likely_slip(item["function"]):
                log.warning("%s: did you mean %s with %s?", record.slug, meant, item["function"])
        for problem in differences(record):
            log.warning("%s: %s", record.slug, problem.message)

    def _check_listed(self, record: PluginRecord, listed: Sequence[str], found: Mapping[str, Any]) -> None:
        present = {item["hook"] for item in found.values()}
        if (record.registered or {}).get("commands"):
            present.add("on_command")
        for hook in listed:
            if hook in self._hooks.specs and hook not in present:
                raise InvalidInput(f"{record.slug} lists the hook {hook} but has no function {hook}")

    def _reads_chat(self, record: PluginRecord) -> bool:
        return PluginPermission.CHAT_ACCESS in record.granted

    def _handler(self, record: PluginRecord, item: Mapping[str, Any]) -> Handler:
        manifest = record.described()
        stage = manifest.stages.get(item["hook"]) or item["stage"]
        return Handler(
            hook=item["hook"],
            owner=record.slug,
            function=item["function"],
            stage=stage,
            call=self._hook_call(record, "hook", item["function"], asks=stage == "reply"),
            priority=item["priority"],
            before=tuple(item["before"]),
            after=tuple(item["after"]),
            recheck=bool(item["recheck"]),
            place=f"{record.path / manifest.entry_file}:{item['line']}",
            line=item["line"],
        )

    def _commands(self, record: PluginRecord) -> list[ChatCommand]:
        manifest = record.described()
        if not manifest.commands:
            return []
        if not (record.registered or {}).get("commands"):
            raise InvalidInput(f"{record.slug} declares commands but has no function on_command(command, args)")
        place = str(record.path / manifest.entry_file)
        call = self._hook_call(record, "command", "on_command")
        handler = Handler("on_command", record.slug, "on_command", "reply", call, place=place)
        return [
            ChatCommand(
                command.name,
                record.slug,
                command.description,
                command.usage,
                handler,
                partial(self._check_roles, record, command.name),
            )
            for command in manifest.commands
        ]

    async def _check_roles(self, record: PluginRecord, command: str, context: CallContext) -> None:
        await roles.check(record, command, context, self._services.refusals)

    def _hook_call(self, record: PluginRecord, kind: str, function: str, *, asks: bool = False) -> Any:
        """What calls a function of the plugin for a hook.

        Args:
            asks: the caller asks the plugin for a reply, and so needs one of its roles.
        """

        async def call(args: tuple[Any, ...], context: CallContext, *, effects: bool, timeout: float) -> Answer:
            if asks and not roles.may_call(record, context):
                await roles.refuse(record, f"{record.slug}.{function}", context, self._services.refusals)
                return Answer()
            api = self._services.for_call(record, context, effects=effects)
            if PluginPermission.FILESYSTEM_READ not in record.granted and kind == "hook":
                args = tuple(_without_path(arg) for arg in args)
            if kind == "command":
                params: dict[str, Any] = {"command": args[0], "args": args[1]}
            else:
                params = {"function": function, "args": list(args)}
            answer = await self._supervisor.call(
                self._calls.spec(record, context.tenant),
                kind,
                params,
                timeout=timeout,
                host=api,
                context=self._calls.about(record, context),
            )
            return Answer(_verdict(kind, answer["result"]), api.staged, tuple(api.guards))

        return call

    def _subscribe(self, record: PluginRecord) -> None:
        """Module functions `on_<event>` subscribe to that event, as far as the grants reach."""
        found = [
            item
            for item in (record.registered or {}).get("events", ())
            if f"on_{item['event']}" not in self._hooks.specs
        ]
        durable = {canonical_pattern(name) for name in record.described().durable_events}
        if missing := sorted(durable - {canonical_pattern(item["event"]) for item in found}):
            raise InvalidInput(
                f"{record.slug} lists the durable event {missing[0]} but has no function on_{missing[0]}"
            )
        for item in found:
            subscription = self._bus.subscribe(
                item["event"],
                self._event_handler(record, item["function"]),
                name=f"{record.slug}.{item['function']}",
                owner=record.slug,
                allow=partial(_may_see, record),
                timeout=self._calls.time_limit(record),
                durable=Durable() if canonical_pattern(item["event"]) in durable else None,
            )
            self._subscriptions.setdefault(record.slug, []).append(subscription)
        self._subscribe_hooked(record)

    def _subscribe_hooked(self, record: PluginRecord) -> None:
        """What the operator hooked is durable: its places outlive restarts."""
        for event, function in self.hooked(record.slug):
            subscription = self._bus.subscribe(
                event,
                self._event_handler(record, function),
                name=f"{record.slug}.{function}:{event}",
                owner=record.slug,
                allow=partial(_may_see, record),
                timeout=self._calls.time_limit(record),
                durable=Durable(),
            )
            self._subscriptions.setdefault(record.slug, []).append(subscription)

    def _event_handler(self, record: PluginRecord, function: str) -> Callable[[Event], Any]:
        async def handle(event: Event) -> Any:
            context, delivery = self._bus.context(), self._bus.delivery
            api = self._services.for_call(record, context, delivery=delivery)
            about = self._calls.about(record, context)
            if delivery is not None:
                about |= {"replay": delivery.replay, "attempt": delivery.attempt}
            answer = await self._supervisor.call(
                self._calls.spec(record, event.tenant),
                "event",
                {"function": function, "event": event.as_dict()},
                timeout=self._calls.time_limit(record),
                host=api,
                context=about,
            )
            value = _of_delivery(answer["result"])
            if api.staged:
                if (staging := self._bus.staging()) is not None:
                    staging.add(api.staged, api.guards)
                else:
                    await self._bus.commit(api.staged, api.guards)
            return value

        return handle


def _of_delivery(answer: Mapping[str, Any]) -> Any:
    """What a worker's handler of an event answered.

    Raises:
        Nak, Term: it said so.
        InvalidInput: it said so in a way that makes no sense.
    """
    match answer:
        case {"verdict": "term", "reason": str(reason)}:
            raise Term(reason)
        case {"verdict": "nak", "delay": None}:
            raise Nak
        case {"verdict": "nak", "delay": int() | float() as delay} if 0 <= delay <= MAX_DELAY:
            raise Nak(delay)
        case {"verdict": "nak", "delay": delay}:
            raise InvalidInput(f"Nak takes a number of seconds from 0 to {MAX_DELAY:,}, or None, not {delay!r:.60}")
    return answer.get("value")


def _without_path(payload: Any) -> Any:
    """An uploaded file's path is for plugins that may read files."""
    if isinstance(payload, dict) and "sha256" in payload and "path" in payload:
        return {key: value for key, value in payload.items() if key != "path"}
    return payload


def _may_see(record: PluginRecord, event: Event) -> bool:
    """Grants are checked per event: chat needs `chat_access`, other plugins' events `plugin_communication`."""
    if event.type.startswith("on_") or event.type == "chat_sent":
        return PluginPermission.CHAT_ACCESS in record.granted
    if event.source.startswith("/plugins/") and event.source != f"/plugins/{record.slug}":
        return PluginPermission.PLUGIN_COMMUNICATION in record.granted
    return True


def _verdict(kind: str, result: Any) -> Any:
    """What a worker's hook answered, as the caller of hooks knows it."""
    if kind == "command" or not isinstance(result, dict):
        return result
    if make := _VERDICTS.get(str(result.get("verdict"))):
        return make(result)
    return result.get("value")
