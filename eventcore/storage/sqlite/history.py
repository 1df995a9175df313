"""Pages of history: how a query is cut into arms that each follow an index, and how those are merged.

Events and step events are in two tables. A page is read in one transaction, from both, each at most `limit` rows long,
and merged by position. Where types are asked for, each (tenant, type) is an arm of its own: its rows stand in the index
in order of position, so a page costs about its own length however long the history is. A short stretch of time is read
by the index for time. A text is looked for among what the search index names, and in what it has not come to yet.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections import Counter
from itertools import islice
from operator import itemgetter
from typing import Any

import orjson

from eventcore.kernel.event import Event
from eventcore.kernel.names import pattern
from eventcore.kernel.records import EventQuery
from eventcore.storage.matching import page_size, where_test, words_of
from eventcore.storage.sqlite.rows import Row, event_of
from eventcore.storage.sqlite.search import candidates, position
from eventcore.storage.sqlite.sql import SQL

#: More arms than this would read more rows than a look through the table in order of position.
_MOST_ARMS = 16
#: How many types or tenants are listed before they are called too many.
_MOST_NAMES = 256

#: A stretch of time with at most so many entries is read by the index for time and then sorted.
_SHORT = 2000

_TABLES = ("events", "journal")
#: By table: which of its rows the history shows, and its columns for what is foreign.
_SHOWN = {"events": "1", "journal": "hidden = 0"}
_FOREIGN = {"events": "ce_type, raw_extensions, blob", "journal": "NULL, NULL, NULL"}

# A `+` keeps SQLite from using an index on that column: without statistics it would prefer (tenant, type) to the far
# narrower ones on run and correlation, and sort the result.
_CONDITIONS = {
    "source": "source = :source",
    "subject": "subject = :subject",
    "actor": "actor = :actor",
    "since": "+at >= :since",
    "until": "+at < :until",
    "after": "position > :after",
    "before": "position < :before",
}
_TEXT = "holds_words(:text, type || char(10) || ifnull(subject, '') || char(10) || actor, raw)"


def read_page(connection: sqlite3.Connection, query: EventQuery) -> list[Event]:
    """One page. Runs in a reader's thread.

    Raises:
        InvalidInput: the query's pattern, or a path of its `where`, is none.
    """
    limit = page_size(query.limit)
    check(query)
    connection.execute(SQL["begin_read"])
    try:
        arms = [rows for table in _TABLES for rows in _read_table(connection, table, query, limit)]
    finally:
        connection.execute(SQL["commit"])
    merged = heapq.merge(*arms, key=itemgetter(0), reverse=query.newest_first)
    return [event_of(row) for row in islice(merged, limit)]


def check(query: EventQuery) -> None:
    """Refuse here what SQLite would report as a failed function, without saying why."""
    if query.pattern is not None:
        pattern(query.pattern)
    where_test(query.where)


def read_counts(
    connection: sqlite3.Connection, query: EventQuery, by: str, every: float | None
) -> Counter[tuple[str | None, float | None]]:
    """How many events there are, by value and beginning of the stretch of time. Runs in a reader's thread."""
    check(query)
    counts: Counter[tuple[str | None, float | None]] = Counter()
    connection.execute(SQL["begin_read"])
    try:
        for table in _TABLES:
            conditions, values = _common(query)
            conditions += [_SHOWN[table], *_loose(query, values)]
            text = SQL["counts"].format(
                # No order is asked for, so SQLite may choose the index.
                table=table,
                by="status_of(raw)" if by == "status" else by,
                conditions=" AND ".join(one.removeprefix("+") for one in conditions),
            )
            for value, stretch, count in connection.execute(text, {**values, "every": every}):
                counts[value, None if every is None else stretch * every] += count
    finally:
        connection.execute(SQL["commit"])
    return counts


def _read_table(connection: sqlite3.Connection, table: str, query: EventQuery, limit: int) -> list[list[Row]]:
    conditions, values = _common(query)
    conditions.append(_SHOWN[table])
    values["limit"] = limit
    if not (query.run or query.correlation_id) and _is_short(connection, table, query):
        conditions = [one.replace("+at", "at") for one in conditions] + _loose(query, values)
        return [_read_arm(connection, f"{table} INDEXED BY {table}_by_time", conditions, values, query)]
    found = candidates(query.text)
    if found is None:
        return _read_arms(connection, table, conditions, values, query)
    indexed = position(connection)
    known = [*conditions, "position IN (SELECT rowid FROM search WHERE search MATCH :found)"]
    loose = dict(values, found=found)
    arms = [_read_arm(connection, table, known + _loose(query, loose), loose, query)]
    # What the search has not come to yet is looked through.
    values["indexed"] = indexed
    return arms + _read_arms(connection, table, [*conditions, "position > :indexed"], values, query)


def _is_short(connection: sqlite3.Connection, table: str, query: EventQuery) -> bool:
    if query.since is None and query.until is None:
        return False
    conditions = [f"at {sign} :{name}" for name, sign in (("since", ">="), ("until", "<")) if getattr(query, name)]
    text = SQL["count_in_time"].format(table=table, shown=_SHOWN[table], conditions=" AND ".join(["1", *conditions]))
    values = {"since": query.since, "until": query.until, "most": _SHORT + 1}
    return int(connection.execute(text, values).fetchone()[0]) <= _SHORT


def _read_arms(
    connection: sqlite3.Connection, table: str, conditions: list[str], values: dict[str, Any], query: EventQuery
) -> list[list[Row]]:
    pairs = None if query.run or query.correlation_id else _pairs(connection, table, query)
    if pairs is None:
        return [_read_arm(connection, table, conditions + _loose(query, values), values, query)]
    conditions = [*conditions, "tenant = :arm_tenant", "type = :arm_type"]
    return [
        _read_arm(connection, table, conditions, {**values, "arm_tenant": tenant, "arm_type": type_}, query)
        for tenant, type_ in pairs
    ]


def _common(query: EventQuery) -> tuple[list[str], dict[str, Any]]:
    """The conditions that every arm has."""
    values: dict[str, Any] = {name: getattr(query, name) for name in _CONDITIONS if getattr(query, name) is not None}
    conditions = [_CONDITIONS[name] for name in values]
    if query.run is not None:
        conditions.append("run = :run")
        values["run"] = query.run
    if query.correlation_id is not None:
        conditions.append(f"{'+' if query.run is not None else ''}correlation_id = :correlation_id")
        values["correlation_id"] = query.correlation_id
    if query.where:
        conditions.append("data_is(:where, raw)")
        values["where"] = orjson.dumps([(path, raw.decode()) for path, raw in query.where]).decode()
    if words_of(query.text):
        conditions.append(_TEXT)
        values["text"] = query.text
    return conditions, values


def _loose(query: EventQuery, values: dict[str, Any]) -> list[str]:
    """The conditions on tenant and type where no arm stands for them."""
    conditions = ["1"]
    if query.tenant is not None:
        conditions.append("+tenant = :tenant")
        values["tenant"] = query.tenant
    if query.types:
        conditions.append("+type IN (SELECT value FROM json_each(:types))")
        values["types"] = orjson.dumps(query.types).decode()
    if query.pattern is not None:
        conditions.append("type_matches(:pattern, type)")
        values["pattern"] = query.pattern
    return conditions


def _read_arm(
    connection: sqlite3.Connection, table: str, conditions: list[str], values: dict[str, Any], query: EventQuery
) -> list[Row]:
    order = "DESC" if query.newest_first else "ASC"
    foreign = _FOREIGN[table.partition(" ")[0]]
    text = SQL["history_arm"].format(table=table, foreign=foreign, conditions=" AND ".join(conditions), order=order)
    return connection.execute(text, values).fetchall()


def _pairs(connection: sqlite3.Connection, table: str, query: EventQuery) -> list[tuple[str, str]] | None:
    """The (tenant, type) pairs that the query asks of a table, or None: look through it in order of position."""
    wide = not query.types and query.pattern in (None, "**")
    tenants = _names(connection, "tenants", table, None)
    if query.tenant is not None:
        if wide and tenants == [query.tenant]:
            return None
        tenants = [query.tenant] if query.tenant in tenants or len(tenants) > _MOST_NAMES else []
    if len(tenants) > _MOST_NAMES or (wide and query.tenant is None):
        return None
    pairs: list[tuple[str, str]] = []
    for tenant in tenants:
        types = _types(connection, table, tenant, query)
        if len(types) + len(pairs) > _MOST_ARMS:
            return None
        pairs += [(tenant, type_) for type_ in types]
    return pairs


def _types(connection: sqlite3.Connection, table: str, tenant: str, query: EventQuery) -> list[str]:
    types = list(dict.fromkeys(query.types)) or _names(connection, "types_of_tenant", table, tenant)
    if query.pattern is None or len(types) > _MOST_NAMES:
        return types
    regex = pattern(query.pattern)
    return [type_ for type_ in types if regex.fullmatch(type_)]


def _names(connection: sqlite3.Connection, statement: str, table: str, tenant: str | None) -> list[str]:
    text = SQL[statement].format(table=table, shown=_SHOWN[table])
    return [row[0] for row in connection.execute(text, {"tenant": tenant, "most": _MOST_NAMES + 1})]
