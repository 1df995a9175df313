"""Versions of the schema: making a new database, and bringing an older one up to date."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from eventcore.kernel.errors import StoreError
from eventcore.storage.sqlite.errors import explain
from eventcore.storage.sqlite.search import memory_text
from eventcore.storage.sqlite.sql import HERE, SQL

#: Tables of which one has rows once anything has been done in a home.
_HELD = ("events", "journal", "runs", "plugin_states", "memory", "schedules", "audit")


def migrations() -> dict[int, str]:
    """The script that leads to each version, by version, in order."""
    files = sorted((HERE / "migrations").glob("[0-9]*.sql"))
    return {int(re.split(r"\D", file.name, maxsplit=1)[0]): file.read_text(encoding="utf-8") for file in files}


def fresh_schema() -> str:
    """The script that makes a database of the newest version."""
    return (HERE / "schema.sql").read_text(encoding="utf-8")


def prepare(
    connection: sqlite3.Connection, path: Path, now: float, steps: dict[int, str], fresh: str | None = None
) -> None:
    """Bring a database to the newest version, in one transaction.

    Args:
        connection: open for writing, in autocommit mode.
        path: of the database, for messages and for the copy.
        now: seconds since the epoch, for the copy's name.
        steps: the migrations by version.
        fresh: the schema for a new database; None: all migrations from the start.

    Raises:
        StoreError: the database is newer than this program, or not one of ours.
    """
    newest = max(steps)
    version = _version(connection)
    if version == newest:
        return
    if version:
        _refuse_newer(version, newest, path)
        _copy(connection, path.with_name(f"{path.name}.version-{version}-{int(now)}"))
    connection.create_function("memory_text", 2, memory_text, deterministic=True)  # a migration and triggers use it
    connection.execute(SQL["begin"])
    try:
        # Another process may have been faster while this one waited for the lock.
        version = _version(connection)
        _refuse_newer(version, newest, path)
        for script in _scripts(connection, path, version, steps, fresh):
            for statement in statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={newest:d}")
        connection.execute(SQL["commit"])
    except BaseException:
        if connection.in_transaction:
            connection.execute(SQL["rollback"])
        raise


def _scripts(
    connection: sqlite3.Connection, path: Path, version: int, steps: dict[int, str], fresh: str | None
) -> list[str]:
    if version == 0:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(
                f"the database {path} is not one of EventCore's: it has tables, but no version",
                hint="name another file, or move this one away",
            )
        if fresh is not None:
            return [fresh]
    return [script for number, script in steps.items() if number > version]


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _refuse_newer(version: int, newest: int, path: Path) -> None:
    if version > newest:
        raise StoreError(
            f"the database {path} has schema version {version}; this EventCore knows versions up to {newest}",
            hint="use the newer EventCore that wrote it, or restore a backup from before the upgrade",
        )


def statements(script: str) -> Iterator[str]:
    """The single statements of a script: `executescript` would commit, and end our transaction."""
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            yield part
            part = ""


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """A copy of the whole database, in one step of SQLite's backup interface, readable by this user only."""
    make_private(target)
    with closing(sqlite3.connect(target)) as copy:
        connection.backup(copy)


def copy_to(connection: sqlite3.Connection, target: Path) -> None:
    """`backup` of the store.

    Raises:
        StoreError: there is a file of that name already.
    """
    if target.exists():
        raise StoreError(f"{target} exists already", hint="a backup never overwrites; name another file")
    _copy(connection, target)


def restore_from(source: Path, target: Path) -> None:
    """Make the database `target` of a backup.

    Raises:
        StoreError: `target` holds events; or `source` is no whole backup, or one of a newer version.
    """
    if target.exists() and not _is_empty(target):
        raise StoreError(f"{target} holds events already", hint="restore into an empty home, or move the file away")
    if not source.is_file():
        raise StoreError(f"there is no backup {source}")
    aside = source.with_name(f"{source.name}-wal")
    if aside.exists() and aside.stat().st_size:
        raise StoreError(f"{source} is in use: it has a write-ahead log", hint="make a backup with `eventcore backup`")
    half = target.with_name(f"{target.name}.restoring")
    half.unlink(missing_ok=True)
    try:
        # A backup is whole in itself; `immutable` lets it be read from a folder that is read-only.
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as backup:
            _check_backup(backup, source)
            _copy(backup, half)
    except sqlite3.Error as error:
        half.unlink(missing_ok=True)
        raise explain(error, source) from error
    for aside in (target.with_name(f"{target.name}{end}") for end in ("-wal", "-shm")):
        aside.unlink(missing_ok=True)
    half.replace(target)


def _is_empty(path: Path) -> bool:
    """Whether a database holds nothing that was recorded: a home that was only looked at has such a one."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = [connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in _HELD]  # noqa: S608
    except sqlite3.Error:
        return False
    return not any(rows)


def _check_backup(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version == 0:
        raise StoreError(f"{path} is no backup of EventCore's: it has no version")
    _refuse_newer(version, max(migrations()), path)
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise StoreError(f"the backup {path} is damaged: {verdict}", hint="take another one")


def make_private(path: Path) -> None:
    """Make the file if it is not there, for this user only. SQLite's side files get the same mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
