"""What SQLite reports, as an error that says what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from eventcore.kernel.errors import StoreError

#: By primary result code (https://www.sqlite.org/rescode.html): what is wrong, and what to do.
_KNOWN: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: ("is locked by another process", "stop the other process, or wait until it is done"),
    sqlite3.SQLITE_LOCKED: ("is locked by another connection", "try again"),
    sqlite3.SQLITE_FULL: ("cannot grow: the disk is full", "free some space; nothing of this commit was stored"),
    sqlite3.SQLITE_READONLY: ("is read-only", "make the file and its folder writable for this user"),
    sqlite3.SQLITE_PERM: ("may not be accessed", "make the file and its folder writable for this user"),
    sqlite3.SQLITE_AUTH: ("may not be accessed", "make the file and its folder writable for this user"),
    sqlite3.SQLITE_NOTADB: ("is not a SQLite database", "name another file, or move this one away"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "restore a backup; `sqlite3 FILE .recover` may save the rest"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that its folder exists and that this user may write there"),
    sqlite3.SQLITE_IOERR: ("had an input/output error", "check the disk, its free space and its mount"),
}


def explain(error: BaseException, path: Path) -> StoreError:
    """The error to raise in place of what the database, or the way to it, raised."""
    if isinstance(error, StoreError):
        # One error object a caller: each gets a traceback of its own.
        return type(error)(error.message, hint=error.hint, **error.details)
    code = getattr(error, "sqlite_errorcode", None)
    known = _KNOWN.get(code & 0xFF) if isinstance(code, int) else None
    if known is None:
        return StoreError(f"the database {path} could not do its work: {error}", path=str(path))
    what, hint = known
    return StoreError(f"the database {path} {what} ({error})", hint=hint, path=str(path))
