"""A chat message or command, and everything that follows at once."""

from __future__ import annotations

from typing import Any

from eventcore.engine import Engine
from eventcore.hooks.outcome import HookOutcome
from eventcore.kernel.context import caller


async def say(
    engine: Engine, text: str, user: str = "anonymous", channel: str = "#general", roles: list[str] | None = None
) -> dict[str, Any]:
    """Put a message through gates and filters, record it, and collect the replies.

    A text whose first word is a declared command goes to the plugin that declares it.
    """
    message = {"text": text, "user": user, "channel": channel}
    context = caller(f"user:{user}", ["user"] if roles is None else roles, engine.tenant)
    if text.startswith("/"):
        outcome = await engine.hooks.command(message, context=context)
    else:
        outcome = await engine.hooks.call("on_message", message, context=context)
    return shape(outcome)


async def call(engine: Engine, hook: str, payload: Any) -> dict[str, Any]:
    """Call any hook on behalf of the operator."""
    return shape(await engine.hooks.call(hook, payload))


def shape(outcome: HookOutcome) -> dict[str, Any]:
    """A hook's outcome as JSON."""
    return {
        "hook": outcome.hook,
        "denied": outcome.denied,
        "reason": outcome.reason,
        "by": outcome.by,
        "value": outcome.value,
        "replies": outcome.replies,
        "repliers": outcome.repliers,
        "event": outcome.event.id if outcome.event else None,
        "position": outcome.event.position if outcome.event else None,
        "trace": [trace.as_dict() for trace in outcome.trace],
    }
