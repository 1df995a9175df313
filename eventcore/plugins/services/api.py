"""The host's API for plugins: what the operator's faces can ask, with the roles of the plugin's caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.host_api import CallApi, Service
from eventcore.plugins.permissions import PluginPermission


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a method and path ask for.

    Attributes:
        title: `POST /plugins/{name}/disable`.
        roles: any one of them is enough.
        changes: whether it does more than look.
        needs: what the plugin has to have besides `api_access`.
        perform: does it, on behalf of a context.
    """

    title: str
    roles: frozenset[str]
    changes: bool
    needs: PluginPermission | None
    perform: Callable[[CallContext], Awaitable[Any]]


class Api(Protocol):
    """Whoever knows the paths."""

    def find(self, method: str, path: str, params: Mapping[str, Any]) -> Wanted:
        """What is asked for.

        Raises:
            NotFound: there is no such path.
        """
        ...


def table(api: Api) -> dict[str, Service]:
    """The service `api`."""

    async def ask(call: CallApi, params: dict[str, Any]) -> Any:
        """Carry out one request."""
        method, path, values = str(params.get("method")), str(params.get("path")), params.get("params") or {}
        if not isinstance(values, dict):
            raise InvalidInput(f"the parameters of {path} are an object, not {type(values).__name__}")
        await call.need(PluginPermission.API_ACCESS, f"use the API ({method} {path:.200})")
        wanted = api.find(method, path, values)
        if wanted.needs is not None:
            await call.need(wanted.needs, f"use {wanted.title}")
        if wanted.changes:
            await call.may_change(f"use {wanted.title}")
        if wanted.roles.isdisjoint(call.context.roles):
            needed = ", ".join(sorted(wanted.roles))
            message = f"{wanted.title} needs one of the roles {needed}; the caller of {call.record.slug} has none"
            await call.refuse(message, roles=sorted(call.context.roles))
        return await wanted.perform(call.context)

    return {"api": ask}
