"""What plugin code and in-process intents get as `params`, and what their parts mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventcore.kernel.context import CallContext


def call_body(
    intent: str, params: Mapping[str, Any], context: CallContext, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The caller's parameters, with `metadata` and `user_context` of the call in place of any of those names."""
    return {
        **params,
        "metadata": {**metadata, "intent": intent},
        "user_context": {"user_id": context.actor, "roles": sorted(context.roles), "tenant": context.tenant},
    }


def direct_call(call_id: str, context: CallContext, key: str | None = None) -> dict[str, Any]:
    """The metadata of a call that no workflow step makes; `key` is its idempotency key, its id where there is none."""
    return {
        "call_id": call_id,
        "idempotency_key": key or call_id,
        "run": context.cause.run,
        "step": None,
        "attempt": 1,
        "tenant": context.tenant,
    }
