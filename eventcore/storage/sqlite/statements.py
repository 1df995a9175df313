"""What reads do in a reader's thread, and claims in the writer's."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from eventcore.kernel.records import LIVE, Memory, Run, RunQuery
from eventcore.kernel.vectors import likest
from eventcore.storage.matching import page_size
from eventcore.storage.sqlite.rows import Row, run_of
from eventcore.storage.sqlite.sql import SQL

P = ParamSpec("P")
T = TypeVar("T")


def fetch(connection: sqlite3.Connection, name: str, values: Any) -> list[Row]:
    """All rows of a named statement."""
    return connection.execute(SQL[name], values).fetchall()


def journal_tail(connection: sqlite3.Connection, run: str) -> tuple[Row | None, list[Row]]:
    """See `Store.journal_tail`. A snapshot that is replaced in between does no harm: entries are only ever added."""
    kept = connection.execute(SQL["snapshot_of_run"], (run,)).fetchone()
    if kept is None:
        return None, fetch(connection, "journal_of_run", (run,))
    return kept, fetch(connection, "journal_after", (run, kept[2]))


def runs_page(connection: sqlite3.Connection, query: RunQuery) -> list[Row]:
    """A page of runs. Of several statuses each has a look of its own, so that an index can give it in order."""
    live = [status for status in query.statuses if status in LIVE]
    looks = [[status] for status in query.statuses if status not in LIVE]
    if live or not query.statuses:
        looks.append(live)
    rows = [row for statuses in looks for row in _runs_look(connection, query, statuses)]
    return sorted(rows, reverse=True)[: page_size(query.limit)] if len(looks) > 1 else rows


def _runs_look(connection: sqlite3.Connection, query: RunQuery, statuses: list[str]) -> list[Row]:
    """Runs of some live statuses, of one that runs end in, or (none given) of any."""
    conditions: list[str] = ["1"]
    values: dict[str, Any] = {"limit": page_size(query.limit)}
    named: dict[str, Any] = {"tenant": query.tenant, "slug": query.slug, "before": query.before}
    for name, value in named.items():
        if value is not None:
            conditions.append("id < :before" if name == "before" else f"{name} = :{name}")
            values[name] = value
    index = ""
    if statuses:
        live = statuses[0] in LIVE
        conditions.append(f"live = {live:d} AND status IN ({', '.join(f':status{n}' for n in range(len(statuses)))})")
        values |= {f"status{n}": status for n, status in enumerate(statuses)}
        # Few runs are live, and few end badly, but SQLite keeps no statistics and does not know. Most are completed:
        # those of one workflow are found by its own index.
        if live:
            index = "INDEXED BY runs_live"
        elif query.tenant is not None and (query.slug is None or statuses != ["completed"]):
            index = "INDEXED BY runs_ended"
    text = SQL["runs_page"].format(index=index, conditions=" AND ".join(conditions))
    return connection.execute(text, values).fetchall()


def nearest(
    connection: sqlite3.Connection, vector: bytes, limit: int, values: dict[str, Any]
) -> list[tuple[Memory, float]]:
    """See `Store.nearest`."""
    found = likest(vector, connection.execute(SQL["vectors"], values), limit)
    rows = ((connection.execute(SQL["memory_by_id"], (name,)).fetchone(), likeness) for name, likeness in found)
    return [(Memory(*row), likeness) for row, likeness in rows if row is not None]


def in_transaction(
    function: Callable[Concatenate[sqlite3.Connection, P], T],
    connection: sqlite3.Connection,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call `function(connection, ...)` in a write transaction."""
    connection.execute(SQL["begin"])
    try:
        result = function(connection, *args, **kwargs)
        connection.execute(SQL["commit"])
    except BaseException:
        if connection.in_transaction:
            connection.execute(SQL["rollback"])
        raise
    return result


def claim(
    connection: sqlite3.Connection, owner: str, now: float, lease: float, limit: int, run: str | None
) -> list[Run]:
    """See `Store.claim`."""
    values = {"owner": owner, "now": now} | ({"limit": limit} if run is None else {"run": run})
    name = "claimable_runs" if run is None else "claimable_run"
    runs = [run_of(row) for row in connection.execute(SQL[name], values)]
    for one in runs:
        one.owner, one.fence, one.lease_until = owner, one.fence + 1, now + lease
    claims = [(one.owner, one.fence, one.lease_until, one.id) for one in runs]
    connection.executemany(SQL["claim_run"], claims)
    return runs


def renew(connection: sqlite3.Connection, owner: str, until: float) -> int:
    """See `Store.renew`."""
    values = {"owner": owner, "until": until}
    change(connection, "renew_cursors", values)
    return change(connection, "renew_runs", values)


def release(connection: sqlite3.Connection, owner: str) -> None:
    """See `Store.release`."""
    change(connection, "release_cursors", {"owner": owner})
    change(connection, "release_runs", {"owner": owner})


def forget_cursor(connection: sqlite3.Connection, values: Any) -> bool:
    """Remove a durable subscription that nobody holds, with its deliveries."""
    if not change(connection, "forget_cursor", values):
        return False
    change(connection, "forget_deliveries", values)
    return True


def change(connection: sqlite3.Connection, name: str, values: Any) -> int:
    """Execute a named statement; return how many rows it changed."""
    return connection.execute(SQL[name], values).rowcount
