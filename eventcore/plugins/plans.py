"""Plans of plugins: events and calls for later, once or by cron. Rows in the store, so that they survive a restart.

An event is emitted in the commit that moves its plan on, so it happens once. A call is claimed first: its plan is moved
to the end of the call's time limit, the call is made, then the plan is moved on. If the engine dies meanwhile, the call
is made again, with the same idempotency key.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import anyio
from anyio.abc import TaskGroup

from eventcore.bus.bus import Bus
from eventcore.kernel.context import CallContext
from eventcore.kernel.cron import next_time
from eventcore.kernel.errors import Conflict, EventCoreError, InvalidInput, NotFound
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import CORE_EVENTS, event_type, is_hook_event
from eventcore.kernel.ports import Clock, Store
from eventcore.kernel.records import Batch, Schedule, ScheduleAt
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord, PluginRegistry

log = logging.getLogger("eventcore.plugins")

#: Plans that one plugin may have in a tenant.
MAX_PLANS = 1000
#: The most that an event or call is planned with, in bytes of JSON, and how far ahead, in seconds: ten years.
MAX_DATA = 64 * 1024
MAX_AHEAD = 3653 * 86400.0
# Seconds between looks where nothing is known to be due, and while a new plan may be on its way to the store.
_IDLE, _SOON, _ON_ITS_WAY = 30.0, 0.25, 60.0
_PAGE = 200
_FAR, _MOST = 9e15, 10_000
_AT_ONCE = 16
_CALL_SPARE = 60.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plugin wants to happen.

    Attributes:
        do, target: `emit` an event type, or `call` an intent.
        next: when it is next, seconds since the epoch; a row that is due later is claimed by a call under way.
        actor, roles: of the caller for whom it was planned.
    """

    plugin: str
    name: str
    do: Literal["emit", "call"]
    target: str
    data: Any
    next: float
    cron: str | None
    timezone: str
    actor: str
    roles: tuple[str, ...]

    @staticmethod
    def of(row: Schedule) -> Plan:
        """A row, read."""
        body = decode(row.raw)
        return Plan(**{**body, "roles": tuple(body["roles"])})

    def row(self, tenant: str, due: float | None = None) -> Schedule:
        """The row that holds it, due at `due` or when it is next."""
        body = {name: getattr(self, name) for name in Plan.__slots__}
        raw = encode({**body, "roles": list(self.roles)})
        return Schedule(plan_id(tenant, self.plugin, self.name), tenant, due or self.next, raw, self.plugin)

    def after(self, now: float) -> Plan | None:
        """What is left of it once it has happened at `now`; None: nothing. Occurrences that were missed are not made
        up for one by one."""
        following = None if self.cron is None else next_time(self.cron, self.timezone, now)
        return None if following is None else replace(self, next=following)


def plan_id(tenant: str, plugin: str, name: str) -> str:
    """The id of a plan's row."""
    return f"plan:{tenant}/{plugin}/{name}"


def plan_name(name: Any) -> str:
    """Check the name of a plan.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r:.80} is no name of a plan; it has letters, digits and _ . : -, at most 128")
    return name


def own_event(record: PluginRecord, name: str) -> str:
    """The event that a plan of this name emits where it says nothing else."""
    listed = name in record.described().emits
    return event_type(name if listed else f"{record.slug}.{name}")


#: Calls an intent: (intent, parameters, context, idempotency key).
Run = Callable[[str, dict[str, Any], CallContext, str], Awaitable[Any]]


class Plans:
    """Carries out what plugins have planned; one an engine.

    Args:
        run: calls an intent.
        limit: the longest that a call of a plugin may take, in seconds.
    """

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        registry: PluginRegistry,
        limit: Callable[[PluginRecord], float],
        run: Run,
    ) -> None:
        self._store, self._bus, self._clock, self._registry = store, bus, clock, registry
        self._limit, self._run = limit, run
        self._bell = anyio.Event()
        self._expected = 0.0
        self._busy: set[str] = set()
        self._slots = anyio.CapacityLimiter(_AT_ONCE)

    def expect(self) -> None:
        """A plan is on its way to the store: look now and then, for nobody tells when it is there."""
        self._expected = self._clock.monotonic() + _ON_ITS_WAY
        self._bell.set()

    def plugins_changed(self) -> None:
        """A plugin came, went, or was granted something else: what waits for it may be due."""
        self._bell.set()

    # -- for people --------------------------------------------------------------------------------------------------

    async def listed(self, tenant: str) -> list[tuple[str, Plan]]:
        """What plugins of a tenant have planned, the earliest first, each with its id for people."""
        rows = await self._store.plans(_FAR, _MOST, tenant=tenant)
        plans = map(Plan.of, rows)
        return [(f"plugin:{plan.plugin}/{plan.name}", plan) for plan in sorted(plans, key=lambda plan: plan.next)]

    async def cancel(self, tenant: str, name: str) -> None:
        """Give up a plan, by its id for people.

        Raises:
            NotFound: there is none.
        """
        plugin, _, wanted = name.removeprefix("plugin:").partition("/")
        rows = await self._store.plans(_FAR, _MOST, tenant=tenant, owner=plugin)
        row = next((row for row in rows if row.id == plan_id(tenant, plugin, wanted)), None)
        if row is None:
            raise NotFound(f"no plugin has planned {name!r}", hint="eventcore schedules list")
        await self._store.commit(Batch(schedules_done=[row.id]))

    async def forget(self, tenant: str, plugin: str) -> int:
        """Give up all that a plugin has planned in a tenant; return how much that was."""
        rows = await self._store.plans(_FAR, _MOST, tenant=tenant, owner=plugin)
        if rows:
            await self._store.commit(Batch(schedules_done=[row.id for row in rows]))
        return len(rows)

    # -- carrying out ------------------------------------------------------------------------------------------------

    def start(self, tasks: TaskGroup) -> None:
        """Begin to carry out what is due."""
        tasks.start_soon(self._keep, tasks, name="eventcore plans")

    async def _keep(self, tasks: TaskGroup) -> None:
        while True:
            self._bell = anyio.Event()
            try:
                wait = await self._look(tasks)
            except EventCoreError as error:
                log.error("plans of plugins could not be kept: %s", error)
                wait = 5.0
            with anyio.move_on_after(wait):
                await self._bell.wait()

    async def _look(self, tasks: TaskGroup) -> float:
        """Begin what is due; return the seconds until something may be."""
        now = self._clock.now()
        for row in await self._store.plans(now, _PAGE):
            plan = Plan.of(row)
            if row.id not in self._busy and self._may(plan):
                self._busy.add(row.id)
                tasks.start_soon(self._do, row, plan, name=f"eventcore plan {plan.name}")
        later = [row for row in await self._store.plans(now + _IDLE, _PAGE) if row.due > now]
        wait = later[0].due - now if later else _IDLE
        expecting = self._clock.monotonic() < self._expected
        return max(0.01, min(wait, _SOON if expecting else _IDLE))

    def _may(self, plan: Plan) -> bool:
        """Whether the plugin is there and may still do it; if not, the plan waits for that."""
        record = self._registry.records.get(plan.plugin)
        if record is None or not record.enabled or PluginPermission.SCHEDULER not in record.granted:
            return False
        return may_emit(record, plan.target) if plan.do == "emit" else may_call_later(record, plan.target)

    async def _do(self, row: Schedule, plan: Plan) -> None:
        try:
            async with self._slots:
                await (self._emit(row, plan) if plan.do == "emit" else self._call(row, plan))
        except Conflict:
            log.debug("the plan %s was changed or done elsewhere", row.id)
        except EventCoreError as error:
            log.warning("the plan %s of %s failed: %s", plan.name, plan.plugin, error)
        finally:
            self._busy.discard(row.id)
            self._bell.set()

    def _on(self, row: Schedule, plan: Plan) -> Batch:
        left = plan.after(self._clock.now())
        return Batch(schedules_done=[row.id]) if left is None else Batch(schedules=[left.row(row.tenant)])

    def _context(self, row: Schedule, plan: Plan) -> CallContext:
        return CallContext(tenant=row.tenant, actor=f"plugin:{plan.plugin}", roles=frozenset(plan.roles))

    async def _emit(self, row: Schedule, plan: Plan) -> None:
        batch = self._on(row, plan)
        # Not as the plugin itself: nobody hears what he emits himself, and this is for the plugin to hear.
        context = self._context(row, plan).acting_as(f"scheduler:{plan.plugin}")
        source = f"/plugins/{plan.plugin}"
        try:
            data = self._bus.types.check(plan.target, plan.data)
            batch.log.append(self._bus.build(plan.target, data, context, source=source, subject=plan.name))
        except InvalidInput as error:
            batch.log.append(self._failed(plan, error, context))
        await self._bus.commit(batch, [ScheduleAt(row.id, row.due)])

    def _failed(self, plan: Plan, error: EventCoreError, context: CallContext) -> Any:
        data = {"plugin": plan.plugin, "plan": plan.name, "type": plan.target, **error.as_dict()}
        return self._bus.build("plugin_error", data, context, source=f"/plugins/{plan.plugin}", subject=plan.name)

    async def _call(self, row: Schedule, plan: Plan) -> None:
        record = self._registry.records[plan.plugin]
        claimed = plan.row(row.tenant, self._clock.now() + self._limit(record) + _CALL_SPARE)
        await self._store.commit(Batch(schedules=[claimed]), [ScheduleAt(row.id, row.due)])
        params = plan.data if isinstance(plan.data, dict) else {} if plan.data is None else {"data": plan.data}
        try:
            await self._run(plan.target, params, self._context(row, plan), f"{row.id}@{plan.next!r}")
        except EventCoreError as error:
            # Recorded by the call itself, as `plugin_error` or `permission_denied`; a plan by cron goes on.
            log.warning("the planned call of %s by %s failed: %s", plan.target, plan.plugin, error)
        await self._store.commit(self._on(row, plan), [ScheduleAt(row.id, claimed.due)])


def may_emit(record: PluginRecord, name: str) -> bool:
    """Whether an event is one that the plugin may emit: of its own prefix, or bare and listed by its manifest."""
    if name in CORE_EVENTS or is_hook_event(name):
        return False
    return name.startswith(f"{record.slug}.") or ("." not in name and name in record.described().emits)


def may_call_later(record: PluginRecord, intent: str) -> bool:
    """Whether a plugin may plan a call: of its own intents always, of others' with `plugin_communication`."""
    own = intent == record.slug or intent in record.described().intents
    return own or PluginPermission.PLUGIN_COMMUNICATION in record.granted
