"""Removing from the history. Runs in the writer's thread, inside its transaction."""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from eventcore.kernel.upkeep import MAX_ENTRIES, Prune, Pruned, PrunedRuns, PruneRuns
from eventcore.storage.sqlite import search
from eventcore.storage.sqlite.sql import SQL

_ROW = "position, type, subject, actor, raw"


def prune(connection: sqlite3.Connection, request: Prune) -> Pruned:
    """See `Store.prune`."""
    events = _rows(connection, "events", request, request.limit)
    steps = _rows(connection, "journal", request, request.limit - len(events))
    search.forget(connection, [*events, *steps])
    if events:
        last = connection.execute(SQL["last_position"]).fetchone()
        connection.execute(SQL["raise_floor"], last)
        positions = orjson.dumps([row[0] for row in events]).decode()
        blobs = connection.execute(SQL["blobs_at"], (positions,)).fetchall()
        connection.executemany(SQL["delete_event"], [row[:1] for row in events])
        connection.executemany(SQL["delete_blob"], [{"tenant": tenant, "hash": blob} for tenant, blob in blobs])
    connection.executemany(SQL["hide_step"], [row[:1] for row in steps])
    keys = connection.execute(SQL["forget_keys"], (request.now,)).rowcount
    return Pruned(len(events), len(steps), keys)


def prunable(connection: sqlite3.Connection, request: Prune) -> Pruned:
    """How much `prune` would remove if it had no limit."""
    counts = [_query(connection, table, request, "count(*)", 1)[0][0] for table in ("events", "journal")]
    return Pruned(*counts)


def prune_runs(connection: sqlite3.Connection, request: PruneRuns) -> PrunedRuns:
    """See `Store.prune_runs`."""
    runs = entries = 0
    connection.execute(SQL["raise_floor"], connection.execute(SQL["last_position"]).fetchone())
    for (run,) in _old_runs(connection, request, "id", request.limit):
        rows = connection.execute(SQL["searchable_entries"], (run,)).fetchall()
        search.forget(connection, rows)
        connection.execute(SQL["delete_entries"], (run,))
        connection.execute(SQL["delete_snapshot"], (run,))
        connection.execute(SQL["delete_run"], (run,))
        runs, entries = runs + 1, entries + len(rows)
        if entries >= MAX_ENTRIES:
            break
    definitions = connection.execute(SQL["delete_definitions"], (request.unused_since,)).rowcount
    return PrunedRuns(runs, entries, definitions)


def prunable_runs(connection: sqlite3.Connection, request: PruneRuns) -> PrunedRuns:
    """How many runs `prune_runs` would remove if it had no limit."""
    return PrunedRuns(_old_runs(connection, request, "count(*)", 1)[0][0])


def _old_runs(connection: sqlite3.Connection, request: PruneRuns, what: str, limit: int) -> list[tuple[Any, ...]]:
    values = {"before": request.before, "tenant": request.tenant, "limit": limit}
    return connection.execute(SQL["prunable_runs"].format(what=what), values).fetchall()


def _rows(connection: sqlite3.Connection, table: str, request: Prune, limit: int) -> list[tuple[Any, ...]]:
    return _query(connection, table, request, _ROW, limit) if limit > 0 else []


def _query(connection: sqlite3.Connection, table: str, request: Prune, what: str, limit: int) -> list[tuple[Any, ...]]:
    conditions = ["1" if table == "events" else "hidden = 0"]
    values: dict[str, Any] = {"limit": limit}
    if request.tenant is not None:
        conditions.append("+tenant = :tenant")
        values["tenant"] = request.tenant
    if request.before is not None:
        conditions.append("at < :before")
        values["before"] = request.before
    for name, sign in (("patterns", ""), ("keep", "NOT ")):
        if patterns := getattr(request, name):
            conditions.append(f"{sign}type_in(:{name}, type)")
            values[name] = orjson.dumps(patterns).decode()
    text = SQL["prunable"].format(
        what=what,
        table=table,
        conditions=" AND ".join(conditions),
        # With an age the index for time finds the oldest, and sees at once that there are none left.
        oldest="position" if request.before is None else "at",
    )
    return connection.execute(text, values).fetchall()
