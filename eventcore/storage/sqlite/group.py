"""One group of batches in one transaction. Runs in the writer's thread.

Each batch is admitted or refused against the database and the batches before it, in Python. What is admitted is
gathered table by table and written at the end with one `executemany` a table: the cost of a statement is then shared
by the whole group. Nothing is refused after it was written, so no savepoints are needed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from eventcore.kernel.errors import Conflict
from eventcore.kernel.ports import Faults
from eventcore.kernel.records import LIVE, Batch, Guard, JournalEntry, RunAt
from eventcore.storage.admission import admit
from eventcore.storage.sqlite.rows import ROW_OF, Row, event_row, journal_row, move_row, run_row
from eventcore.storage.sqlite.sql import SQL

#: The batch's position (see `Store.commit`), or why it was not stored.
Outcome: TypeAlias = int | Exception
Work: TypeAlias = tuple[Batch, Sequence[Guard]]

_BEGIN, _COMMIT, _ROLLBACK = SQL["begin"], SQL["commit"], SQL["rollback"]

#: Errors that one batch's rows cause, whatever the state of the database.
_BAD_ROW = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    AttributeError,
    TypeError,
    ValueError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class _Table:
    """How a record of a batch that is replaced as a whole is stored.

    Attributes:
        put: the statement that writes a row, `key`: what two rows of one kind share.
        delete: the statement that removes one, and `done`: the field of the batch that names which.
    """

    field: str
    put: str
    key: Callable[[Row], Hashable]
    delete: str | None = None
    done: str = ""


_TABLES = (
    _Table("snapshots", SQL["put_snapshot"], lambda row: row[0], SQL["delete_snapshot"], "snapshots_done"),
    _Table("definitions", SQL["put_definition"], lambda row: row[0]),
    _Table("timers", SQL["put_timer"], lambda row: row[0], SQL["delete_timer"], "timers_done"),
    _Table("listening", SQL["put_listening"], lambda row: row[0], SQL["delete_listening"], "listening_done"),
    _Table("keys", SQL["put_key"], lambda row: row[:3]),
    _Table("cursors", SQL["put_cursor"], lambda row: row[:2]),
    _Table("deliveries", SQL["put_delivery"], lambda row: row[:3], SQL["delete_delivery"], "deliveries_done"),
    _Table("dead_letters", SQL["put_dead_letter"], lambda row: row[0], SQL["delete_dead_letter"], "dead_letters_done"),
    _Table("plugin_states", SQL["put_plugin_state"], lambda row: row[:2]),
    _Table("plugin_hooks", SQL["put_plugin_hook"], lambda row: row, SQL["delete_plugin_hook"], "plugin_hooks_done"),
    _Table("packages", SQL["put_package"], lambda row: row[:2]),
    _Table(
        "plugin_settings",
        SQL["put_plugin_setting"],
        lambda row: row[:3],
        SQL["delete_plugin_setting"],
        "plugin_settings_done",
    ),
    _Table("memory", SQL["put_memory"], lambda row: row[0], SQL["delete_memory"], "memory_done"),
    _Table("schedules", SQL["put_schedule"], lambda row: row[0], SQL["delete_schedule"], "schedules_done"),
)

_IN_TABLES = {field: table for table in _TABLES for field in (table.field, table.done) if field}


def write_group(connection: sqlite3.Connection, work: Sequence[Work], faults: Faults) -> list[Outcome]:
    """Store every batch that its guards allow; one outcome a batch, in order.

    A row that SQLite refuses (text that is no UTF-8, a number beyond 64 bits) fails the transaction of the whole group.
    Its batches are then written one by one, so that only the one at fault fails.

    Raises:
        Exception: the group could not be written, and nothing of it is stored.
    """
    try:
        return _transaction(connection, work, faults)
    except _BAD_ROW as error:
        return [error] if len(work) == 1 else [_write_alone(connection, item, faults) for item in work]


def _write_alone(connection: sqlite3.Connection, work: Work, faults: Faults) -> Outcome:
    try:
        return write_group(connection, [work], faults)[0]
    except Exception as error:  # noqa: BLE001 - an outcome, like any other
        return error


def _transaction(connection: sqlite3.Connection, work: Sequence[Work], faults: Faults) -> list[Outcome]:
    connection.execute(_BEGIN)
    try:
        group = _Group(connection, work)
        outcomes = [group.take(batch, guards) for batch, guards in work]
        group.write()
        faults.reach("store.before_commit")
        connection.execute(_COMMIT)
    except BaseException:
        # Some errors, a full disk among them, have ended the transaction already.
        if connection.in_transaction:
            connection.execute(_ROLLBACK)
        raise
    faults.reach("store.after_commit")
    return outcomes


class _Group:
    """What a group has admitted so far. Implements `eventcore.storage.admission.View`."""

    def __init__(self, connection: sqlite3.Connection, work: Iterable[Work]) -> None:
        self._connection = connection
        self._position: int = connection.execute(SQL["last_position"]).fetchone()[0]
        # Version, fence and whether it is live, of each run that was asked for.
        self._heads: dict[str, tuple[int, int, bool] | None] = {}
        self._events: list[Row] = []
        self._journal: list[Row] = []
        self._runs: list[Row] = []
        self._moves: dict[str, Row] = {}
        self._ends: list[Row] = []
        self._audit: list[Row] = []
        self._blobs: list[Row] = []
        self._begun: dict[Hashable, Row] = {}
        # By table: the last that happened to each row; None where it was removed.
        self._rows: dict[str, dict[Hashable, Row | None]] = {}
        self._read_heads(work)

    def _read_heads(self, work: Iterable[Work]) -> None:
        """The heads of all runs that guards ask for, with one statement."""
        wanted = {guard.run for _, guards in work for guard in guards if type(guard) is RunAt}
        if len(wanted) > 1:
            self._heads = dict.fromkeys(wanted)
            names = orjson.dumps(list(wanted)).decode()
            for run, *head in self._connection.execute(SQL["run_heads"], (names,)):
                self._heads[run] = tuple(head)

    def run_head(self, run: str) -> tuple[int, int] | None:
        head = self._head(run)
        return None if head is None else head[:2]

    def _head(self, run: str) -> tuple[int, int, bool] | None:
        if run not in self._heads:
            self._heads[run] = self._connection.execute(SQL["run_head"], (run,)).fetchone()
        return self._heads[run]

    def key_expiry(self, key: tuple[str, str, str]) -> float | None:
        if (row := self._rows.get("keys", {}).get(key)) is not None:
            expires: float = row[5]
            return expires
        found = self._connection.execute(SQL["key_expiry"], key).fetchone()
        return None if found is None else found[0]

    def cursor_position(self, tenant: str, name: str) -> int:
        if (row := self._rows.get("cursors", {}).get((tenant, name))) is not None:
            position: int = row[2]
            return position
        found = self._connection.execute(SQL["cursor"], (tenant, name)).fetchone() or self._begun.get((tenant, name))
        return 0 if found is None else found[2]

    def cursor_fence(self, tenant: str, name: str) -> int | None:
        found = self._connection.execute(SQL["cursor_fence"], (tenant, name)).fetchone()
        return None if found is None else found[0]

    def schedule_due(self, name: str) -> float | None:
        rows = self._rows.get("schedules", {})
        if name in rows:
            row = rows[name]
            return None if row is None else row[2]
        found = self._connection.execute(SQL["schedule_due"], (name,)).fetchone()
        return None if found is None else found[0]

    def listens(self, name: str) -> bool:
        rows = self._rows.get("listening", {})
        if name in rows:
            return rows[name] is not None
        return self._connection.execute(SQL["is_listening"], (name,)).fetchone() is not None

    def live_runs(self, tenant: str, slug: str, limit_key: str | None) -> int:
        # Counted by the database, which must know of the group's own runs first.
        self._write_runs()
        names = {"tenant": tenant, "slug": slug, "limit_key": limit_key}
        count: int = self._connection.execute(SQL["live_runs"], names).fetchone()[0]
        return count

    def take(self, batch: Batch, guards: Sequence[Guard]) -> Outcome:
        """Admit the batch and gather its rows, or say why not."""
        try:
            admit(batch, guards, self)
        except Conflict as conflict:
            return conflict
        touched = batch.touched
        first = self._position + 1 if touched.get("log") else self._position
        self._take_log(batch)
        if "runs" in touched or "moves" in touched:
            self._take_runs(batch)
        for field in touched.keys() & _IN_TABLES.keys():
            table = _IN_TABLES[field]
            if field == table.field or table.field not in touched:
                self._take_rows(table, batch)
        for begun in touched.get("cursors_begun", ()):
            self._begun.setdefault((begun.tenant, begun.name), ROW_OF[type(begun)](begun))
        for row in touched.get("audit", ()):
            self._audit.append(ROW_OF[type(row)](row))
        return first

    def _take_log(self, batch: Batch) -> None:
        position = self._position
        for entry in batch.log:
            position += 1
            if isinstance(entry, JournalEntry):
                self._journal.append(journal_row(entry, position))
            else:
                self._events.append(event_row(entry, position))
                if entry.body is not None:
                    self._blobs.append((entry.tenant, entry.blob, entry.body))
        self._position = position

    def _take_runs(self, batch: Batch) -> None:
        for run in batch.runs:
            self._runs.append(run_row(run))
            self._heads[run.id] = (run.version, run.fence, run.status in LIVE)
        for move in batch.moves:
            head = self._head(move.id)
            assert head is not None  # admitted
            live = move.status in LIVE
            if live == head[2]:
                self._moves[move.id] = (*move_row(move), move.id)
            else:
                # Written before moves are, so earlier moves of this run must not follow it.
                self._moves.pop(move.id, None)
                self._ends.append((*move_row(move), live, move.id))
            self._heads[move.id] = (move.version, head[1], live)

    def _take_rows(self, table: _Table, batch: Batch) -> None:
        """Removals come before additions, as in every backend."""
        done: list[Hashable] = getattr(batch, table.done) if table.done else []
        records: list[Any] = getattr(batch, table.field)
        if not (done or records):
            return
        rows = self._rows.setdefault(table.field, {})
        rows.update(dict.fromkeys(done))
        for record in records:
            row = ROW_OF[type(record)](record)
            rows[table.key(row)] = row

    def write(self) -> None:
        """Write all that was gathered. No table has a say in another's, so their order does not matter."""
        many = self._connection.executemany
        if self._events:
            many(SQL["insert_event"], self._events)
        if self._blobs:
            many(SQL["put_blob"], self._blobs)
        if self._journal:
            many(SQL["insert_journal"], self._journal)
        self._write_runs()
        if self._begun:
            # Before the cursors that were moved: those replace what stands here.
            many(SQL["begin_cursor"], self._begun.values())
        for table in _TABLES:
            if rows := self._rows.get(table.field):
                if table.delete:
                    many(table.delete, [_names(key) for key, row in rows.items() if row is None])
                many(table.put, [row for row in rows.values() if row is not None])
        if self._audit:
            many(SQL["insert_audit"], self._audit)

    def _write_runs(self) -> None:
        if self._runs:
            self._connection.executemany(SQL["insert_run"], self._runs)
            self._runs = []
        if self._ends:
            self._connection.executemany(SQL["end_run"], self._ends)
            self._ends = []
        if self._moves:
            self._connection.executemany(SQL["move_run"], self._moves.values())
            self._moves = {}


def _names(key: Hashable) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)
