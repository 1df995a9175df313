"""What the context of a call tells `ctx`, in a worker and in the host's own process alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class About:
    """The part of `eventcore.sdk.Binding` that is only looked up.

    Args:
        context: as the host sent it with the call.
        config: the plugin's settings, where the context has none of its own.
    """

    __slots__ = ("_config", "_context")

    def __init__(self, context: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        self._context, self._config = context, config

    @property
    def tenant(self) -> str:
        return str(self._context.get("tenant", "default"))

    @property
    def actor(self) -> str:
        return str(self._context.get("actor", "system"))

    @property
    def permissions(self) -> frozenset[str]:
        return frozenset(self._context.get("permissions", ()))

    @property
    def replay(self) -> bool:
        return self._context.get("replay") is True

    @property
    def attempt(self) -> int:
        return int(self._context.get("attempt", 1))

    @property
    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self._context.get("config", self._config)
        return config
