"""Records as rows and back. The order of the columns is that of `queries.sql`."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeAlias

import orjson

from eventcore.kernel.context import PathEntry
from eventcore.kernel.event import Event
from eventcore.kernel.records import (
    LIVE,
    Audit,
    Cursor,
    DeadLetter,
    Definition,
    Delivery,
    JournalEntry,
    Key,
    Listening,
    Memory,
    Package,
    PluginHook,
    PluginSetting,
    PluginState,
    Run,
    RunMove,
    Schedule,
    Snapshot,
    Timer,
)

Row: TypeAlias = tuple[Any, ...]

_EVENT_COLUMNS = 21

# attrgetter makes the tuple in C: this runs once for every row that is written.
_event_fields = attrgetter(
    "id", "type", "source", "at", "raw", "tenant", "actor", "subject", "key", "run", "correlation_id", "causation_id",
    "hops", "traceparent", "idempotency_key", "schema_version",
)  # fmt: skip


def event_row(event: Event, position: int) -> Row:
    """An event at the position it will have."""
    path = _path_text(event.path) if event.path else None
    return (position, *_event_fields(event), path, event.ce_type, event.raw_extensions, event.blob)


def journal_row(entry: JournalEntry, position: int) -> Row:
    """A step event at the position it will have. Never foreign: the journal has no columns for that."""
    return (*event_row(entry.event, position)[:-3], entry.attempt)


def event_of(row: Row) -> Event:
    """The event that `event_row` (or, without what is foreign, `journal_row`) made a row of."""
    path = _path_of(row[17]) if row[17] else ()
    foreign = row[18:21] if len(row) == _EVENT_COLUMNS else ()
    return Event(*(*row[1:14], path, *row[14:17], row[0], *foreign))


def journal_of(row: Row) -> JournalEntry:
    """The journal entry that `journal_row` made a row of."""
    return JournalEntry(event_of(row), row[18])


def _path_text(path: tuple[PathEntry, ...]) -> str:
    return orjson.dumps(path).decode()


def _path_of(text: str) -> tuple[PathEntry, ...]:
    return tuple(tuple(entry) for entry in orjson.loads(text))


_run_fields = attrgetter(
    "id", "tenant", "slug", "definition", "status", "raw_inputs", "actor", "roles", "created", "updated", "version",
    "raw_output", "raw_error", "correlation_id", "causation_id", "hops", "chain", "traceparent", "trigger",
    "raw_trigger_event", "parent", "limit_key", "owner", "fence", "lease_until",
)  # fmt: skip
_ROLES, _CHAIN = 7, 16


def run_row(run: Run) -> Row:
    """A run's head row."""
    row = list(_run_fields(run))
    row[_ROLES], row[_CHAIN] = orjson.dumps(run.roles).decode(), _path_text(run.chain)
    return (*row, run.status in LIVE)


def run_of(row: Row) -> Run:
    """The run that `run_row` made a row of."""
    values = list(row)
    values[_ROLES], values[_CHAIN] = tuple(orjson.loads(row[_ROLES])), _path_of(row[_CHAIN])
    return Run(*values)


#: How each record that is stored field by field becomes a row; its class makes the record of the row again.
ROW_OF: dict[type, Callable[[Any], Row]] = {
    record: attrgetter(*record.__slots__)
    for record in (
        Snapshot,
        Definition,
        Timer,
        Listening,
        Key,
        Cursor,
        Delivery,
        DeadLetter,
        PluginHook,
        PluginState,
        Package,
        PluginSetting,
        Memory,
        Schedule,
        Audit,
    )
}

#: The columns that a move changes.
move_row: Callable[[RunMove], Row] = attrgetter("status", "version", "updated", "raw_output", "raw_error")
