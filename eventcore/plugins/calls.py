"""Calling intents: roles, the worker, what the call changed, and what it sets off.

Implements the port `Invoker`, through which workflows call the same intents in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from eventcore.bus.bus import Bus
from eventcore.bus.calling import describe, readable
from eventcore.bus.current import serving
from eventcore.kernel.context import CallContext, Cause, loop_in
from eventcore.kernel.errors import (
    EventCoreError,
    InvalidPayload,
    NoResponder,
    PluginFailed,
    UnknownIntent,
)
from eventcore.kernel.event import MAX_PAYLOAD, Event
from eventcore.kernel.json import encode
from eventcore.kernel.masking import MaskingSecrets
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.ports import Clock, Ids, Invocation, Metrics, WorkflowStarter
from eventcore.kernel.records import Batch
from eventcore.kernel.schemas import Schema
from eventcore.plugins import roles
from eventcore.plugins.allowance import SandboxRules
from eventcore.plugins.bodies import call_body, direct_call
from eventcore.plugins.chaining import chain, reports_failure
from eventcore.plugins.cleaning import for_caller, without_secrets
from eventcore.plugins.configuration import Configuration
from eventcore.plugins.fallback import instead_of, stand_in
from eventcore.plugins.host_api import HostServices
from eventcore.plugins.memory.memories import Memories
from eventcore.plugins.prepared import Preparations
from eventcore.plugins.registry import HostIntent, PluginRecord, PluginRegistry
from eventcore.plugins.sandbox.spec import WorkerLimits, WorkerSpec
from eventcore.plugins.sandbox.supervisor import Supervisor

log = logging.getLogger("eventcore.plugins")

#: How long an in-process function may take in a direct call, in seconds.
HOST_TIMEOUT = 300.0
#: Parameters of one call, in bytes of JSON. A plugin's worker takes less: one message to it has at most 1 MiB.
MAX_PARAMS = 8 * 1024 * 1024


class Calls:
    """How anybody calls an intent."""

    def __init__(
        self,
        *,
        registry: PluginRegistry,
        supervisor: Supervisor,
        services: HostServices,
        bus: Bus,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        starter: WorkflowStarter,
        timeout: float,
        limits: WorkerLimits,
        configuration: Configuration,
        secrets: MaskingSecrets,
        rules: SandboxRules,
    ) -> None:
        self.registry, self._supervisor, self.services = registry, supervisor, services
        self._bus, self._clock, self._ids, self._metrics, self._starter = bus, clock, ids, metrics, starter
        self.configuration, self._secrets = configuration, secrets
        self.rules = rules
        #: Where results are remembered; set where the engine is put together.
        self.memories: Memories | None = None
        self.limits = limits
        self._specs: dict[tuple[str, str], WorkerSpec] = {}
        self._prepared = Preparations(metrics, timeout)

    # -- Invoker -----------------------------------------------------------------------------------------------------

    def knows(self, intent: str, tenant: str) -> bool:
        return self.registry.answering(intent) is not None

    def at_once(self, intent: str, tenant: str) -> bool:
        target = self.registry.host.get(intent)
        return target is not None and target.at_once

    async def invoke(
        self, intent: str, params: Mapping[str, Any], context: CallContext, metadata: Mapping[str, Any]
    ) -> Invocation:
        target = await self.target(intent, context)
        done = await self._call(target, intent, params, context, metadata)
        chain(target, done, context, self._starter, self._bus)
        return done

    # -- direct calls ------------------------------------------------------------------------------------------------

    async def run(
        self,
        intent: str,
        params: Mapping[str, Any],
        context: CallContext,
        *,
        timeout: float | None = None,
        key: str | None = None,
        remember: bool = False,
    ) -> Invocation:
        """Call an intent and record the call, with everything it changed, in one commit.

        Args:
            timeout: seconds; None means the plugin's own limit.
            key: the idempotency key that the code is told, of a call that may be made again; None: one of its own.
            remember: put the result into the tenant's memory, if the settings say so.

        Raises:
            UnknownIntent, AccessDenied, PluginFailed: as for `Invoker.invoke`; failures are recorded too.
            InvalidPayload: the parameters are not JSON.
            LoopDetected: the intents call each other in a circle.
        """
        self._bus.check_open()
        encode(params, limit=MAX_PARAMS, what=f"the parameters of {intent}")
        target = await self.target(intent, context)
        # The id of the `plugin_called` that will be recorded: what the code emits meanwhile can name it as its cause.
        call_id = self._ids.new()
        inner = context.because(_inside(context.cause, call_id, intent))
        if loop_in(inner.cause):
            self._bus.check(self._bus.build("plugin_called", {"intent": intent}, inner))
        metadata = direct_call(call_id, context, key)
        began = self._clock.monotonic()
        try:
            done = await self._call(target, intent, params, inner, metadata, timeout)
        except EventCoreError as error:
            event = await self._record_failure(target, intent, error, context, self._clock.monotonic() - began)
            if isinstance(error, PluginFailed):
                raise for_caller(error, event.id, context) from None
            raise
        if remember and self.memories is not None and not reports_failure(done.result):
            row = self.memories.of_result(intent, params, done.result, done.provider, context.tenant)
            done.effects.memory.extend([row] if row is not None else [])
        await self._record_success(target, call_id, intent, params, done, context, self._clock.monotonic() - began)
        return done

    async def respond(self, target: str, params: Mapping[str, Any], timeout: float, context: CallContext) -> Any:
        """Answer a request that came over the bus.

        Raises:
            NoResponder: no enabled plugin has this slug or intent, and no in-process function answers it.
        """
        if self.registry.answering(target) is None:
            unknown = self._unknown(target)
            raise NoResponder(unknown.message, hint=unknown.hint)
        return (await self.run(target, params, context, timeout=timeout)).result

    async def _record_success(
        self,
        target: HostIntent | PluginRecord,
        call_id: str,
        intent: str,
        params: Mapping[str, Any],
        done: Invocation,
        context: CallContext,
        seconds: float,
    ) -> None:
        data = {
            "plugin": done.provider,
            "intent": intent,
            "status": "failed" if reports_failure(done.result) else "ok",
            "seconds": round(seconds, 6),
            "params": params,
            "result": done.result,
        }
        if done.instead_of is not None:
            data["instead_of"] = done.instead_of
        if len(encode(data)) > MAX_PAYLOAD:
            data["params"] = data["result"] = "(too large to record)"
        source = f"/plugins/{done.provider}"
        event = self._bus.build("plugin_called", data, context, source=source, subject=intent, event_id=call_id)
        chain(target, done, context.because(event.cause()), self._starter, self._bus)
        batch = Batch(log=[event])
        batch.add(done.effects)
        await self._bus.commit(batch, done.guards)

    async def _record_failure(
        self,
        target: HostIntent | PluginRecord,
        intent: str,
        error: EventCoreError,
        context: CallContext,
        seconds: float,
    ) -> Event:
        provider = _provider(target)
        data = {"plugin": provider, "intent": intent, "seconds": round(seconds, 6), **error.as_dict()}
        data["message"] = readable(error.message)
        if isinstance(error, PluginFailed):
            data |= {"type": error.kind, "trace": error.trace}
        return await self._bus.announce("plugin_error", data, context, source=f"/plugins/{provider}", subject=intent)

    # -- the call itself ---------------------------------------------------------------------------------------------

    async def target(self, intent: str, context: CallContext) -> HostIntent | PluginRecord:
        """Who answers an intent, once the caller's roles were looked at.

        Raises:
            UnknownIntent: nobody. AccessDenied: the roles do not suffice; recorded.
        """
        target = self.registry.answering(intent) or stand_in(self.registry, self.registry.declared(intent))
        if target is None:
            raise self._unknown(intent)
        if not roles.may_call(target, context):
            await roles.check(target, intent, context, self.services.refusals)
        return target

    def _unknown(self, intent: str) -> UnknownIntent:
        if (record := self.registry.declared(intent)) is not None:
            state = "not enabled" if record.state in ("discovered", "installed") else record.state
            return UnknownIntent(
                f"{record.slug} answers {intent!r} but is {state}",
                hint=record.reason or f"eventcore plugins enable {record.slug}",
            )
        near = did_you_mean(intent, self.registry.intents())
        return UnknownIntent(f"nobody answers the intent {intent!r}{near}", hint="eventcore plugins list")

    async def _call(
        self,
        target: HostIntent | PluginRecord,
        intent: str,
        params: Mapping[str, Any],
        context: CallContext,
        metadata: Mapping[str, Any],
        timeout: float | None = None,
    ) -> Invocation:
        body = call_body(intent, params, context, metadata)
        meters = self._prepared.host if isinstance(target, HostIntent) else self._prepared.of(target).meters
        meters.calls(1)
        began = self._clock.monotonic()
        try:
            if isinstance(target, HostIntent):
                done = await self._call_host(target, body, context, timeout)
            else:
                done = await self._call_plugin(target, params, body, context, timeout)
        except PluginFailed as error:
            provider = _provider(target)
            self._metrics.count("plugin_failures_total", plugin=provider, reason=error.code)
            without_secrets(error, self._secrets)
            other = stand_in(self.registry, target)
            if other is None or "instead_of" in metadata:
                raise error from None
            await self._record_failure(target, intent, error, context, self._clock.monotonic() - began)
            await self.target(_provider(other), context)  # its roles count as well
            return await self._call(other, intent, params, context, {**metadata, "instead_of": provider}, timeout)
        done.instead_of = instead_of(self.registry, intent, done.provider)
        if reports_failure(done.result):
            self._metrics.count("plugin_failures_total", plugin=done.provider, reason="reported")
        meters.seconds(self._clock.monotonic() - began)
        return done

    async def _call_host(
        self, target: HostIntent, body: dict[str, Any], context: CallContext, timeout: float | None
    ) -> Invocation:
        try:
            with serving(self._bus, context):
                result = await target.answer(body, HOST_TIMEOUT if timeout is None else timeout)
        except EventCoreError:
            raise
        except Exception as error:
            raise PluginFailed(describe(error), kind=type(error).__name__) from error
        try:
            raw = encode(result, what=f"the result of {target.name}")
        except InvalidPayload as error:
            raise PluginFailed(error.message, kind="InvalidPayload") from None
        return Invocation(result, "host", raw=raw)

    async def _call_plugin(
        self,
        record: PluginRecord,
        params: Mapping[str, Any],
        body: dict[str, Any],
        context: CallContext,
        timeout: float | None,
    ) -> Invocation:
        ready = self._prepared.of(record)
        if ready.takes is not None and (wrong := ready.takes.wrong(params)):
            raise ready.takes.refusal(wrong, f"parameters of {record.slug}")
        api = self.services.for_call(record, context)
        answer = await self._supervisor.call(
            self.spec(record, context.tenant),
            "run",
            {"params": body},
            timeout=timeout or ready.timeout,
            host=api,
            context=ready.about(record, context),
        )
        if ready.gives is not None and (wrong := ready.gives.wrong(answer["result"])):
            raise PluginFailed(
                f"the result of {record.slug} breaks its output_schema: {wrong[0]}", kind="InvalidResult"
            )
        masks = self._secrets
        return Invocation(
            masks.data(answer["result"]),
            record.slug,
            effects=api.staged,
            guards=tuple(api.guards),
            stdout=masks.text(answer["stdout"]),
            stderr=masks.text(answer["stderr"]),
        )

    def schemas(self, record: PluginRecord) -> tuple[Schema | None, Schema | None]:
        """The compiled schemas of parameters and result."""
        found = self._prepared.of(record)
        return found.takes, found.gives

    # -- workers -----------------------------------------------------------------------------------------------------

    def spec(self, record: PluginRecord, tenant: str) -> WorkerSpec:
        """What the plugin's worker is started with; made once for each version of its code.

        Raises:
            InvalidInput: its settings are not right.
        """
        key = (tenant, record.slug)
        found = self._specs.get(key)
        if found is None or found.version != (record.content_hash or ""):
            manifest = record.described()
            found = self._specs[key] = WorkerSpec(
                slug=record.slug,
                dir=record.path,
                module=manifest.entry_file,
                entry_point=manifest.entry_point,
                class_name=manifest.class_name,
                config=self.configuration.values(record),
                tenant=tenant,
                allow=self.rules.allowance(record),
                inline=self.rules.inline(record),
                home=self.rules.home,
                version=record.content_hash or "",
                limits=self.limits,
            )
        return found

    def forget(self, record: PluginRecord) -> None:
        """Read the plugin's settings and secrets again at the next start of its worker."""
        self._specs = {key: spec for key, spec in self._specs.items() if key[1] != record.slug}

    def time_limit(self, record: PluginRecord) -> float:
        """Seconds that one call of the plugin may take: its manifest's limit, else the settings'."""
        return self._prepared.of(record).timeout

    def about(self, record: PluginRecord, context: CallContext) -> dict[str, Any]:
        """What `ctx` tells the plugin's code about the call."""
        return self._prepared.of(record).about(record, context)


def _provider(target: HostIntent | PluginRecord) -> str:
    return "host" if isinstance(target, HostIntent) else target.slug


def _inside(cause: Cause, call_id: str, intent: str) -> Cause:
    """The cause of what the called code does by itself."""
    return Cause(
        event=call_id,
        correlation=cause.correlation or call_id,
        hops=cause.hops + 1,
        path=(*cause.path, (f"intent:{intent}", "plugin_called", "")),
        run=cause.run,
        traceparent=cause.traceparent,
    )
