"""Refuses chat messages of users who write too fast: a token bucket for each user.

Settings in `[hooks.settings.rate-limit-gate]`: `per_minute` (default 30) messages a minute in the long run, `burst`
(default 10) at once, `most_users` (default 10000) remembered; the one silent for longest is forgotten first.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from eventcore.sdk import Deny, gate

_settings: dict[str, Any] = globals().get("settings", {})
_RATE = float(_settings.get("per_minute", 30)) / 60
_BURST = float(_settings.get("burst", 10))
_MOST_USERS = int(_settings.get("most_users", 10_000))

#: User -> (messages that may still be sent, when that was so); the least recent first.
_buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()


def _now() -> float:
    return time.monotonic()


@gate(priority=50)
async def on_message(message: dict[str, Any]) -> Deny | None:
    user, now = str(message.get("user", "anonymous")), _now()
    tokens, since = _buckets.pop(user, (_BURST, now))
    tokens = min(_BURST, tokens + (now - since) * _RATE)
    allowed = tokens >= 1
    _buckets[user] = (tokens - 1 if allowed else tokens, now)
    if len(_buckets) > _MOST_USERS:
        _buckets.popitem(last=False)
    if allowed:
        return None
    return Deny(
        f"{user} writes too fast; wait {(1 - tokens) / _RATE:.0f} seconds" if _RATE else f"{user} may not write"
    )
