"""Versions of the schema: making a new database, and bringing an older one up to date."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from eventcore.kernel.errors import StoreError
from eventcore.storage.sqlite.sql import HERE, SQL


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


def make_private(path: Path) -> None:
    """Make the file if it is not there, for this user only. SQLite's side files get the same mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
