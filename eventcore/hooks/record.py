"""What is recorded of a hook call: one commit with its end, what handlers want to change, and each failure."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from typing import Any, Protocol

from eventcore.bus.calling import describe
from eventcore.hooks.outcome import HookOutcome
from eventcore.hooks.room import Room
from eventcore.hooks.specs import HookSpec
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import Conflict, PluginFailed
from eventcore.kernel.json import decode, encode_sorted, text_digest
from eventcore.kernel.records import Batch, Guard

log = logging.getLogger("eventcore.hooks")

#: The owner of handlers that the embedder registered without naming one. Never degraded: nobody could enable it again.
HOST = "host"


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a handler did not answer.

    Attributes:
        text: for the caller, who has the payload anyway.
        safe: without any text of the handler's, which may quote the payload; None if `text` is safe.
        error: what it raised.
        degraded: it was not asked, because its owner's handlers kept failing.
    """

    text: str
    safe: str | None = None
    error: Exception | None = None
    degraded: bool = False


class Call(Protocol):
    """A call that has ended, as far as its record goes; see `eventcore.hooks.call.Call`."""

    room: Room
    spec: HookSpec
    context: CallContext
    outcome: HookOutcome
    raw_original: bytes
    troubles: dict[int, Trouble]
    effects: Batch | None
    guards: list[Guard]


def trouble_of(error: Exception) -> Trouble:
    """What a handler raised, in words."""
    if isinstance(error, PluginFailed):
        return Trouble(error.message, error.kind, error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {last[0].filename.rpartition('/')[2]}:{last[0].lineno}" if last else ""
    return Trouble(describe(error), type(error).__name__ + place, error)


async def record_call(call: Call, *, failed: bool) -> None:
    """Record the end of a call.

    Args:
        failed: it ended with `HookFailed`, before anything was committed.

    Raises:
        Conflict: what handlers wanted to change was refused; the end of the call is recorded without it.
    """
    outcome, spec = call.outcome, call.spec
    recorded = spec.record == "always" or (spec.record == "denied" and outcome.denied)
    if outcome.denied:
        _withhold(call)
    _log(call)
    host = call.context.acting_as("system", ())
    if outcome.event is not None:
        host = host.because(outcome.event.cause())
    batch = Batch()
    if recorded and (outcome.trace or outcome.denied):
        batch.log.append(
            call.room.bus.build("hook_completed", _end(call, failed), host, source="/hooks", subject=spec.name)
        )
    _add_failures(call, batch, host)
    _add_changes(call, batch, host)
    if call.effects is not None:
        await _commit_with_effects(call, batch, call.effects)
    elif batch:
        await call.room.bus.commit(batch, call.guards)


async def _commit_with_effects(call: Call, record: Batch, effects: Batch) -> None:
    """The record together with what handlers want to change; alone, where that is refused."""
    whole = Batch()
    whole.add(record)
    whole.add(effects)
    try:
        await call.room.bus.commit(whole, call.guards)
    except Conflict:
        # Somebody else was faster with what a handler wanted. That the call took place is a fact all the same.
        if record:
            await call.room.bus.commit(record)
        raise


def _end(call: Call, failed: bool) -> dict[str, Any]:
    outcome = call.outcome
    record: dict[str, Any] = {"hook": call.spec.name, "denied": outcome.denied}
    if outcome.denied:
        original = decode(call.raw_original)
        record |= {"by": outcome.by, "reason": outcome.reason}
        record["payload_sha256"] = text_digest(encode_sorted(original).decode())
        if call.room.keep_denied:
            record["payload"] = original
    elif failed:
        record["failed"] = True
    else:
        record["replies"] = len(outcome.replies)
    record["handlers"] = [trace.as_dict() for trace in outcome.trace]
    return record


def _withhold(call: Call) -> None:
    """Take the handlers' own words out of a denied call: an error's text may quote the payload."""
    for index, trouble in call.troubles.items():
        if trouble.safe is not None:
            call.outcome.trace[index].error = f"{trouble.safe} (its text is withheld: the call was denied)"


def _log(call: Call) -> None:
    for index, trouble in call.troubles.items():
        trace = call.outcome.trace[index]
        if not trouble.degraded:
            error = None if call.outcome.denied else trouble.error
            log.warning("%s failed in %s: %s", trace.handler, call.spec.name, trace.error, exc_info=error)


def _add_failures(call: Call, batch: Batch, host: CallContext) -> None:
    for index, trouble in call.troubles.items():
        trace = call.outcome.trace[index]
        owner = trace.handler.partition(".")[0]
        call.room.metrics.count("eventcore_hook_failures_total", plugin=owner, outcome=trace.status)
        if trouble.degraded:
            continue  # `plugin_degraded` has said it once, and the trace of each call says it
        data = {"plugin": owner, "hook": call.spec.name, **trace.as_dict()}
        batch.log.append(call.room.bus.build("plugin_error", data, host, source="/hooks"))


def _add_changes(call: Call, batch: Batch, host: CallContext) -> None:
    """Tell the breaker how each owner did, and record what that changes."""
    room, trouble = call.room, call.troubles
    if not trouble and room.breaker.quiet:
        return
    failed: dict[str, int] = {}
    for index, trace in enumerate(call.outcome.trace):
        if trace.status != "skipped":
            owner = trace.handler.partition(".")[0]
            failed[owner] = failed.get(owner, 0) + (index in trouble)
    for owner, count in failed.items():
        change = None if owner == HOST else room.breaker.settled(owner, count, room.clock.monotonic())
        if change is None:
            continue
        reason = (
            f"its hook handlers failed {room.breaker.failures} times in a row"
            if change == "degraded"
            else "it answers again"
        )
        data: dict[str, Any] = {"plugin": owner, "reason": reason}
        if change == "degraded":
            data |= {"hook": call.spec.name, "retry_after": room.breaker.rest}
        what = "plugin_degraded" if change == "degraded" else "plugin_enabled"
        batch.log.append(room.bus.build(what, data, host, source="/hooks", subject=owner))
        room.metrics.gauge("eventcore_hook_degraded", float(change == "degraded"), plugin=owner)
        for rows in room.owners:
            if (more := rows(owner, change, reason)) is not None:
                batch.add(more)
