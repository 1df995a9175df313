"""Planning events and calls for later, and giving plans up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from eventcore.kernel.cron import next_time
from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import event_type
from eventcore.kernel.records import Schedule
from eventcore.plugins.host_api import CallApi, Service, number
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.plans import MAX_AHEAD, MAX_DATA, MAX_PLANS, Plan, Plans, may_emit, own_event, plan_id, plan_name

_FAR = 9e15


def table(plans: Plans) -> dict[str, Service]:
    """The services `scheduler.plan`, `scheduler.cancel` and `scheduler.list`."""

    async def plan(call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
        """Stage a plan; returns its name and when it is next."""
        made = await _planned(call, params)
        row = made.row(call.context.tenant)
        _drop_staged(call, row.id)
        call.staged.schedules.append(row)
        plans.expect()
        return {"name": made.name, "next": _iso(made.next)}

    return {"scheduler.plan": plan, "scheduler.cancel": cancel, "scheduler.list": listed}


async def _planned(call: CallApi, params: dict[str, Any]) -> Plan:
    """The plan that was asked for, checked.

    Raises:
        PermissionDenied: no `scheduler`; or an event or intent that the plugin may not use.
        InvalidInput: it makes no sense, or there are too many.
    """
    record, name = call.record, plan_name(params.get("name"))
    await call.need(PluginPermission.SCHEDULER, f"plan {name}")
    await call.may_change(f"plan {name}")
    zone = _zone(params.get("timezone") or "UTC")
    cron = params.get("cron")
    when = _when(params, zone, call.services.clock.now())
    intent, event = params.get("call"), params.get("emit")
    if intent is not None and event is not None:
        raise InvalidInput("a plan emits an event or calls an intent; say emit or call, not both")
    if intent is not None:
        target = await _intent(call, str(intent))
    else:
        target = await _event(call, own_event(record, name) if event is None else event_type(str(event)))
    decode(encode(params.get("data"), limit=MAX_DATA, what=f"the data of the plan {name}"))
    existing = await call.services.store.plans(_FAR, MAX_PLANS, tenant=call.context.tenant, owner=record.slug)
    ids = {row.id for row in (*existing, *call.staged.schedules)} | {plan_id(call.context.tenant, record.slug, name)}
    if len(ids) > MAX_PLANS:
        raise InvalidInput(f"{record.slug} has {MAX_PLANS:,} plans; cancel some first")
    return Plan(
        plugin=record.slug,
        name=name,
        do="emit" if intent is None else "call",
        target=target,
        data=params.get("data"),
        next=when,
        cron=cron,
        timezone=zone.key,
        actor=call.context.actor,
        roles=tuple(sorted(call.context.roles)),
    )


async def _event(call: CallApi, name: str) -> str:
    """The event may be emitted: as for `emit`, but `scheduler` is enough."""
    if not may_emit(call.record, name):
        await call.refuse(f"{call.record.slug} may not plan {name}: its manifest lists no such event in events.emits")
    return name


async def _intent(call: CallApi, intent: str) -> str:
    own = intent == call.record.slug or intent in call.record.described().intents
    if not own:
        await call.need(PluginPermission.PLUGIN_COMMUNICATION, f"plan a call of {intent}")
    return intent


async def cancel(call: CallApi, params: dict[str, Any]) -> bool:
    """Stage the end of a plan; whether there is one."""
    name = plan_name(params.get("name"))
    await call.need(PluginPermission.SCHEDULER, f"cancel {name}")
    await call.may_change(f"cancel {name}")
    wanted = plan_id(call.context.tenant, call.record.slug, name)
    staged = _drop_staged(call, wanted)
    there = any(row.id == wanted for row in await _stored(call))
    if there:
        call.staged.schedules_done.append(wanted)
    return staged or there


async def listed(call: CallApi, params: dict[str, Any]) -> list[dict[str, Any]]:
    """The plugin's plans, as they are once this call has succeeded."""
    await call.need(PluginPermission.SCHEDULER, "see its plans")
    done = set(call.staged.schedules_done)
    rows = {row.id: row for row in await _stored(call) if row.id not in done}
    rows |= {row.id: row for row in call.staged.schedules}
    return [shape(row) for row in sorted(rows.values(), key=lambda row: (row.due, row.id))]


async def _stored(call: CallApi) -> list[Schedule]:
    return await call.services.store.plans(_FAR, MAX_PLANS, tenant=call.context.tenant, owner=call.record.slug)


def _drop_staged(call: CallApi, wanted: str) -> bool:
    before = len(call.staged.schedules)
    call.staged.schedules[:] = [row for row in call.staged.schedules if row.id != wanted]
    return len(call.staged.schedules) < before


def shape(row: Schedule) -> dict[str, Any]:
    """A plan for people and programs."""
    plan = Plan.of(row)
    return {
        "name": plan.name,
        "next": _iso(plan.next),
        "does": f"{plan.do} {plan.target}",
        "cron": plan.cron,
        "timezone": plan.timezone,
    }


# -- times -------------------------------------------------------------------------------------------------------------


def _when(params: dict[str, Any], zone: ZoneInfo, now: float) -> float:
    """The first time that was asked for, seconds since the epoch. A time that is past is due at once."""
    said = [name for name in ("at", "after", "cron") if params.get(name) is not None]
    if len(said) != 1:
        raise InvalidInput("say when: one of at, after and cron")
    match said[0]:
        case "after":
            return now + number(params, "after", 0, 0, MAX_AHEAD)
        case "cron":
            return _cron(params["cron"], zone, now)
        case _:
            at = _at(params["at"], zone)
    if at > now + MAX_AHEAD:
        raise InvalidInput("a plan is at most ten years ahead")
    return max(at, 0.0)


def _at(at: Any, zone: ZoneInfo) -> float:
    if isinstance(at, int | float) and not isinstance(at, bool):
        return float(at)
    try:
        when = datetime.fromisoformat(at)
        return (when if when.tzinfo else when.replace(tzinfo=zone)).timestamp()
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"{at!r:.80} is no time", hint="2030-01-31T09:00:00Z, or seconds since the epoch") from None


def _cron(cron: Any, zone: ZoneInfo, now: float) -> float:
    hint = "five fields: minute, hour, day, month, weekday"
    if not isinstance(cron, str) or len(cron) > 256 or len(cron.split()) != 5:
        raise InvalidInput(f"{cron!r:.80} is no cron line", hint=hint)
    try:
        when = next_time(cron, zone.key, now)
    except (ValueError, KeyError, OverflowError) as error:
        raise InvalidInput(f"{cron!r} is no cron line: {error}", hint=hint) from None
    if when is None:
        raise InvalidInput(f"{cron!r} never comes")
    return when


def _zone(name: Any) -> ZoneInfo:
    try:
        return ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):
        raise InvalidInput(f"{name!r:.80} is no time zone", hint="a name such as Europe/Berlin") from None


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
