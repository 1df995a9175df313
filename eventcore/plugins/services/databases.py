"""Databases: statements of plugins, on databases of the operator or of their own."""

from __future__ import annotations

from typing import Any

from eventcore.kernel.errors import InvalidInput, PermissionDenied
from eventcore.plugins.databases import MAX_ROWS, MAX_STATEMENTS, Databases, Place
from eventcore.plugins.host_api import CallApi, Service, number
from eventcore.plugins.permissions import PluginPermission

_P = PluginPermission


def table(databases: Databases) -> dict[str, Service]:
    """The services `db.fetch` and `db.execute`."""

    async def fetch(call: CallApi, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of a statement that reads."""
        place = await _place(call, params, _P.DATABASE_READ, "read")
        limit = int(number(params, "limit", 1000, 1, MAX_ROWS))
        try:
            return await databases.fetch(place, params.get("sql"), params.get("values", []), limit)
        except PermissionDenied as error:
            await call.refuse(error.message, permission=str(_P.DATABASE_WRITE), database=place.key)
            raise

    async def execute(call: CallApi, params: dict[str, Any]) -> dict[str, Any]:
        """Statements that change, in one transaction of their own."""
        place = await _place(call, params, _P.DATABASE_WRITE, "change")
        await call.may_change(f"change the database {params.get('name')}")
        try:
            return await databases.execute(place, _statements(params.get("statements")))
        except PermissionDenied as error:
            await call.refuse(error.message, permission=str(_P.DATABASE_WRITE), database=place.key)
            raise

    async def _place(call: CallApi, params: dict[str, Any], permission: PluginPermission, what: str) -> Place:
        name = params.get("name")
        await call.need(permission, f"{what} the database {name!s:.80}")
        place = databases.place(call.context.tenant, call.record.slug, name)
        listed = call.record.described().databases
        if place.shared and name not in listed:
            await call.refuse(
                f"{call.record.slug} may not {what} the database {name}: its manifest does not name it in "
                "permissions.database_access",
                permission=str(permission),
                database=place.key,
            )
        return place

    return {"db.fetch": fetch, "db.execute": execute}


def _statements(asked: Any) -> list[tuple[str, Any]]:
    if not isinstance(asked, list) or not 0 < len(asked) <= MAX_STATEMENTS:
        raise InvalidInput(f"there are 1 to {MAX_STATEMENTS:,} statements in one transaction")
    found = []
    for one in asked:
        match one:
            case [str(sql), list() | dict() as values]:
                found.append((sql, values))
            case _:
                raise InvalidInput("each statement is SQL text and its values")
    return found
