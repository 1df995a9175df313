"""The process that runs the SQL of plugins: `python -m eventcore.plugins.statements CHANNEL LINE FOLDER BYTES`.

SQL of a stranger may take any memory, and any time within one step that SQLite cannot be called back from: a search of
a megabyte in another, a view of views of views. So it runs apart from the host, with a limit of memory, and a clock
that ends the process; the host waits a little longer than that, and kills it. One process serves one statement at a
time, and is used again. What a statement may do is decided by SQLite itself, under an authorizer; should SQLite err,
the kernel lets the process reach one folder's files and nothing else, where it knows how to.
"""

from __future__ import annotations

import base64
import fcntl
import math
import os
import resource
import select
import signal
import socket
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from eventcore.kernel.errors import EventCoreError, InvalidInput, PermissionDenied
from eventcore.kernel.json import decode, encode
from eventcore.plugins.sandbox.linux import calls, landlock, seccomp

#: Bytes of one answer as JSON; less than what one message to a worker may hold.
MAX_ANSWER = 768 * 1024
#: Bytes of address space beyond what the process has at its start.
MEMORY = 128 << 20
_MAX_SQL, _MAX_VALUE, MAX_VALUES = 100_000, 1024 * 1024, 1000
_STEPS = 1000  # virtual machine steps between looks at the clock
_LOCKED = 2.0  # seconds to wait for another writer
#: From the end of a statement's time to that of its process; the first is the end of most. Seconds.
GRACE = 0.5
_LENGTH = struct.Struct(">I")

_READ = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_RECURSIVE,
    sqlite3.SQLITE_TRANSACTION,
}
_NEVER = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA}
#: Looking at the schema is reading; every other pragma changes the connection or the file.
_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})
#: A writer was killed, and left what only a connection that writes can undo.
_UNFINISHED = frozenset({"SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT"})
_FUNCTIONS_NEVER = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})


def _opened(asked: dict[str, Any]) -> sqlite3.Connection:
    """A connection as a statement is to have it."""
    connection = sqlite3.connect(asked["address"], uri=True, isolation_level=None, timeout=_LOCKED, cached_statements=0)
    try:
        connection.row_factory = sqlite3.Row
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, MAX_VALUES)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA temp_store=MEMORY")
        if sys.version_info >= (3, 12):  # the tables beneath an index of words are not for writing to
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        if asked["write"]:
            connection.execute("PRAGMA foreign_keys=ON")
            if asked["log_ahead"]:  # an operator's own file keeps the mode that it has
                connection.execute("PRAGMA journal_mode=WAL")
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count={asked['size'] // page}")
    except BaseException:
        connection.close()
        raise
    return connection


def bound(values: Any) -> Any:
    """Values as SQLite takes them.

    Raises:
        InvalidInput: one is no value.
    """
    if isinstance(values, dict):
        return {str(name): _value(value) for name, value in values.items()}
    return [_value(value) for value in values]


def _value(value: Any) -> Any:
    match value:
        case {"base64": str(text), **rest} if not rest:
            try:
                return base64.b64decode(text, validate=True)
            except ValueError:
                raise InvalidInput("a value says base64 but is not") from None
        case None | bool() | int() | float() | str():
            return value
    raise InvalidInput(f"a value is null, a number, a text or {{'base64': text}}, not {type(value).__name__}")


@contextmanager
def _guarded(connection: sqlite3.Connection, write: bool, seconds: float) -> Iterator[None]:
    """Let statements do no more than they may, and no longer."""
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > end), _STEPS)
    if write:
        connection.execute("BEGIN IMMEDIATE")
    else:
        connection.execute("PRAGMA query_only=ON")
    connection.set_authorizer(_authorizer(write))
    try:
        yield
    finally:
        connection.set_authorizer(None)
        connection.set_progress_handler(None, 0)
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA query_only=OFF")


def _authorizer(write: bool) -> Callable[..., int]:
    def allow(action: int, first: str | None, second: str | None, schema: str | None, inner: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_DENY if (second or "").lower() in _FUNCTIONS_NEVER else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA:
            return sqlite3.SQLITE_OK if (first or "").lower() in _PRAGMAS else sqlite3.SQLITE_DENY
        if action in _NEVER or (action == sqlite3.SQLITE_TRANSACTION and first != "ROLLBACK"):
            return sqlite3.SQLITE_DENY  # the transaction is ours to begin and end
        return sqlite3.SQLITE_OK if write or action in _READ else sqlite3.SQLITE_DENY

    return allow


def _fetch(connection: sqlite3.Connection, sql: str, values: Any, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    size = 0
    for row in connection.execute(sql, values):
        if len(found) == limit:
            raise InvalidInput(f"the statement gives more than {limit:,} rows", hint="add LIMIT, or raise limit=")
        found.append({name: _json(row[name]) for name in row.keys()})  # noqa: SIM118 - a Row is no mapping
        size += sum(len(one) for one in row if isinstance(one, str | bytes))
        if size > MAX_ANSWER:  # counted as they come: together they may be ten thousand times as much
            break
    encode(found, limit=MAX_ANSWER, what="the rows")
    return found


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _execute(connection: sqlite3.Connection, statements: list[list[Any]]) -> dict[str, Any]:
    changed, last = 0, None
    for sql, values in statements:
        cursor = connection.execute(sql, bound(values))
        changed += max(0, cursor.rowcount)
        last = cursor.lastrowid or last
    connection.set_authorizer(None)
    connection.execute("COMMIT")
    return {"changed": changed, "last_id": last}


def _explained(error: Exception, asked: dict[str, Any]) -> Exception:
    name, code, seconds = asked["name"], getattr(error, "sqlite_errorname", ""), asked["seconds"]
    if code.startswith(("SQLITE_AUTH", "SQLITE_READONLY")):
        return PermissionDenied(f"the database {name} refuses the statement: {error}")
    if code == "SQLITE_INTERRUPT":
        return InvalidInput(f"the statement ran over its {seconds:g} s in the database {name}")
    if code == "SQLITE_FULL":
        return InvalidInput(f"the database {name} has its {asked['size'] / (1 << 20):g} MiB")
    if code == "SQLITE_IOERR_WRITE" and asked["write"]:
        return InvalidInput(
            f"the database {name} cannot keep more than was written already while other statements still read what "
            "was there before",
            hint="write less at once, or wait for the statements that read",
        )
    if isinstance(error, MemoryError) or code == "SQLITE_NOMEM":
        return InvalidInput(f"the statement needs more than {MEMORY >> 20} MiB of memory in the database {name}")
    return InvalidInput(f"the database {name}: {error}")


# -- the process -----------------------------------------------------------------------------------------------------


def receive(sock: socket.socket, most: int, end: float = math.inf) -> Any:
    """One message.

    Args:
        end: until when it must be here, by the monotonic clock.

    Raises:
        OSError: there is none, or none in time, or it is larger than `most` bytes, or no JSON.
    """
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size, end))
    if length > most:
        raise OSError(f"a message of {length:,} bytes")
    try:
        return decode(_exactly(sock, length, end))
    except (ValueError, EventCoreError) as error:
        raise OSError(f"a message that is none: {error}") from None


def _exactly(sock: socket.socket, length: int, end: float) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        if end < math.inf:
            sock.settimeout(max(0.001, end - time.monotonic()))
        if not (part := sock.recv(min(length - len(parts), 1 << 16))):
            raise ConnectionResetError("the other side has gone")
        parts += part
    return bytes(parts)


def send(sock: socket.socket, message: Any) -> None:
    """Send one."""
    raw = encode(message)
    sock.sendall(_LENGTH.pack(len(raw)) + raw)


class _Server:
    """Answers statements; keeps a connection to databases in memory, for they are nowhere else."""

    def __init__(self) -> None:
        self._memory: sqlite3.Connection | None = None

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        signal.setitimer(signal.ITIMER_REAL, asked["seconds"] + GRACE)
        try:
            return {"ok": self._run(asked)}
        except EventCoreError as error:
            return _refusal(error)
        except (sqlite3.Error, MemoryError, ValueError, OverflowError) as error:
            return _refusal(_explained(error, asked))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _run(self, asked: dict[str, Any]) -> Any:
        try:
            return self._once(asked)
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") not in _UNFINISHED or asked["write"]:
                raise
            _finish(asked)
            return self._once(asked)

    def _once(self, asked: dict[str, Any]) -> Any:
        with self._connected(asked) as connection, _guarded(connection, asked["write"], asked["seconds"]):
            if asked["write"]:
                return _execute(connection, asked["statements"])
            return _fetch(connection, asked["sql"], bound(asked["values"]), asked["limit"])

    @contextmanager
    def _connected(self, asked: dict[str, Any]) -> Iterator[sqlite3.Connection]:
        if asked["kept"]:
            self._memory = self._memory or _opened(asked | {"write": True, "log_ahead": False})
            yield self._memory
            return
        connection = _opened(asked)
        try:
            yield connection
        finally:
            connection.close()


def _refusal(error: Exception) -> dict[str, Any]:
    kind = "denied" if isinstance(error, PermissionDenied) else "invalid"
    text = getattr(error, "message", str(error)).encode(errors="backslashreplace").decode()
    return {"error": kind, "message": text[:2000], "hint": getattr(error, "hint", None)}


def _finish(asked: dict[str, Any]) -> None:
    """Undo what a writer left when it was killed; a connection that only reads cannot."""
    address = asked["address"].removesuffix("?mode=ro") + "?mode=rw"
    connection = sqlite3.connect(address, uri=True, timeout=_LOCKED)
    try:
        connection.execute("select count(*) from sqlite_master").fetchone()
    finally:
        connection.close()


def _die_with(line: int) -> None:
    """End when the host closes its end of a pipe, by a signal: nothing else gets through in the middle of a statement.

    A parent's death signal (prctl) would come when the thread ends that started us.
    """
    with suppress(OSError, AttributeError):
        fcntl.fcntl(line, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(line, fcntl.F_SETFL, fcntl.fcntl(line, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([line], [], [], 0)[0]:
        os._exit(1)


def _limit(file_bytes: int) -> None:
    with suppress(OSError, ValueError):  # not everywhere is there a /proc; plugins are confined on Linux only
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))


def _confine(folder: str, file_bytes: int) -> None:
    """Set limits; withhold all but the folder's files, and what SQLite never asks of the kernel.

    Where the kernel does not know how, statements run without: no plugin but one that the operator trusts runs there.
    """
    code = b""
    with suppress(OSError, KeyError, AttributeError):  # the last where it is not Linux
        calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1)
        calls.prctl(calls.PR_SET_DUMPABLE, 0)
        allowed = seccomp.Allowed(os.getpid(), threads=False, metadata=False, owners=True, alone=False)
        code = seccomp.program(calls.arch(), allowed)
        paths = [("/dev/urandom", landlock.READ), ("/etc/localtime", landlock.READ)]
        landlock.restrict(landlock.abi(), paths + ([(folder, landlock.KEEP)] if folder else []))
    _limit(file_bytes)  # the filter lets nobody set any
    with suppress(OSError):
        if code:
            seccomp.install(code)


def main() -> None:
    """Serve the socket that is named by the first argument, until its other side is closed."""
    channel, line, folder, file_bytes = sys.argv[1:]
    _die_with(int(line))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the host closes the socket
    time.localtime()  # what is loaded at the first use must be loaded now
    sqlite3.connect(":memory:").execute("select datetime('now', 'localtime'), random()").fetchone()
    _confine(folder, int(file_bytes))
    server = _Server()
    with socket.socket(fileno=int(channel)) as sock, suppress(OSError):
        while True:
            send(sock, server.answer(receive(sock, 1 << 30)))


if __name__ == "__main__":
    main()
