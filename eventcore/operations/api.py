"""The operations by the paths of the REST API, for plugins (`ctx.api`): who may use which.

Changing permissions is not among them: that is the operator's alone, or a plugin could grant itself what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from eventcore.engine import Engine
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.names import did_you_mean
from eventcore.operations.table import OPERATIONS, perform, streams
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.services.api import Wanted

_ANYBODY = frozenset({"user", "power_user", "developer", "admin", "operator"})
_DEVELOPERS = frozenset({"developer", "admin", "operator"})
_ADMINS = frozenset({"admin", "operator"})
_ADMIN = PluginPermission.ADMIN_ACCESS


@dataclass(frozen=True, slots=True)
class Route:
    """One path.

    Attributes:
        path: with its parameters in braces.
        operation: what it does; the parameters are the operation's.
        roles: any one of them is enough.
        needs: what the plugin has to have besides `api_access`; what changes the host needs `admin_access`.
    """

    method: str
    path: str
    operation: str
    roles: frozenset[str]
    needs: PluginPermission | None = None

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}"


ROUTES: tuple[Route, ...] = (
    Route("GET", "/status", "status", _ANYBODY),
    Route("GET", "/plugins", "plugins.list", _ANYBODY),
    Route("GET", "/plugins/{name}", "plugins.info", _ANYBODY),
    Route("GET", "/workflows", "workflows.list", _ANYBODY),
    Route("GET", "/workflows/{slug}", "workflows.show", _ANYBODY),
    Route("GET", "/hooks", "hooks.list", _ANYBODY),
    Route("POST", "/intents/{intent}", "intents.run", _ANYBODY, needs=PluginPermission.PLUGIN_COMMUNICATION),
    Route("GET", "/events", "events.list", _DEVELOPERS),
    Route("GET", "/events/{id}", "events.show", _DEVELOPERS),
    Route("GET", "/runs", "runs.list", _DEVELOPERS),
    Route("GET", "/runs/{id}", "runs.show", _DEVELOPERS),
    Route("GET", "/schedules", "schedules.list", _DEVELOPERS),
    Route("GET", "/deadletters", "deadletters.list", _DEVELOPERS),
    Route("POST", "/plugins/{name}/enable", "plugins.enable", _ADMINS, _ADMIN),
    Route("POST", "/plugins/{name}/disable", "plugins.disable", _ADMINS, _ADMIN),
    Route("POST", "/runs/{id}/cancel", "runs.cancel", _ADMINS, _ADMIN),
    Route("POST", "/runs/{id}/pause", "runs.pause", _ADMINS, _ADMIN),
    Route("POST", "/runs/{id}/resume", "runs.resume", _ADMINS, _ADMIN),
    Route("POST", "/runs/{id}/retry", "runs.retry", _ADMINS, _ADMIN),
    Route("POST", "/schedules/{id}/pause", "schedules.pause", _ADMINS, _ADMIN),
    Route("POST", "/deadletters/{id}/redrive", "deadletters.redrive", _ADMINS, _ADMIN),
    Route("POST", "/memory/purge", "memory.purge", _ADMINS, _ADMIN),
    Route("POST", "/hooks/reload", "hooks.reload", _ADMINS, _ADMIN),
)

#: What a caller must not say for itself: on whose behalf, and which grants.
_NOT_SAID = frozenset({"user", "roles", "grants"})


class ApiPaths:
    """Finds the route for a request. Implements `eventcore.plugins.services.api.Api`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, method: str, path: str, params: Mapping[str, Any]) -> Wanted:
        """What a request asks for.

        Raises:
            NotFound: there is no such path; names the nearest.
            InvalidInput: a parameter is the host's to say.
        """
        parts = urlsplit(path)
        asked = parts.path.removeprefix("/api")
        for route in ROUTES:
            if route.method == method and (named := _match(route.path, asked)) is not None:
                said = {**dict(parse_qsl(parts.query)), **params}
                if wrong := sorted(_NOT_SAID & said.keys()):
                    raise InvalidInput(f"{route.title} takes no {wrong[0]} from a plugin: its caller's roles hold")
                run = partial(self._perform, route, {**said, **named})
                return Wanted(route.title, route.roles, method != "GET", route.needs, run)
        near = did_you_mean(f"{method} {asked}", [route.title for route in ROUTES])
        raise NotFound(f"the API has no {method} {path:.200}{near}")

    async def _perform(self, route: Route, params: dict[str, Any], context: CallContext) -> Any:
        items: list[Any] = []

        async def send(item: Any) -> None:
            items.append(item)

        result = await perform(self._engine, route.operation, params, send, context)
        return items if streams(OPERATIONS[route.operation]) else result


def _match(template: str, path: str) -> dict[str, str] | None:
    """The parameters of a path, or None if it is another one."""
    wanted, there = template.split("/"), path.rstrip("/").split("/")
    if len(wanted) != len(there):
        return None
    pairs = list(zip(wanted, there, strict=True))
    if any(ours != theirs and not (ours.startswith("{") and theirs) for ours, theirs in pairs):
        return None
    return dict(_named(pairs))


def _named(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for ours, theirs in pairs:
        if ours.startswith("{"):
            yield ours.strip("{}"), unquote(theirs)
