"""What only the SQLite store does: files, crashes, versions, locks, full disks, groups."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiosqlite
import anyio
import pytest
import trio

import eventcore
from eventcore.kernel.errors import Conflict, StoreError
from eventcore.kernel.event import Event
from eventcore.kernel.faults import FaultPlan
from eventcore.kernel.records import LIVE, Batch, EventQuery, Run, RunAt, RunMove, RunQuery, Timer
from eventcore.storage.sqlite import SqliteStore, schema
from eventcore.storage.sqlite.connection import Connection, add_functions
from eventcore.storage.sqlite.rows import run_row
from eventcore.storage.sqlite.sql import HERE, SQL, parse
from eventcore.storage.sqlite.statements import runs_page

pytestmark = pytest.mark.anyio

ROOT = Path(eventcore.__file__).parent.parent


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[SqliteStore]:
    async with AsyncExitStack() as stack:
        store = SqliteStore(path, **options)
        await store.start(stack)
        yield store


def event(number: int, **fields: Any) -> Event:
    return Event(**{"id": f"e{number}", "type": "tick", "source": "/host", "at": 1.0, "raw": b"{}", **fields})


def script(text: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    """A Python process that can import the package."""
    command = [sys.executable, "-c", textwrap.dedent(text), *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


# -- files


async def test_reopen_keeps_everything_and_continues(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as store:
        assert await store.commit(Batch(log=[event(1), event(2)], timers=[Timer("t", "default", 3.0, "r", b"{}")])) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"], "a clean close leaves no side files"
    async with opened(path) as store:
        assert await store.next_timer() == 3.0
        assert await store.commit(Batch(log=[event(3)])) == 3
        assert [found.id for found in await store.events(EventQuery())] == ["e1", "e2", "e3"]


async def test_positions_are_not_given_again_after_the_newest_rows_went(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as store:
        await store.commit(Batch(log=[event(1), event(2)]))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = 2 WHERE name = 'position_floor'")
        connection.execute("DELETE FROM events")
    async with opened(path) as store:
        assert await store.last_position() == 2
        assert await store.commit(Batch(log=[event(3)])) == 3


async def test_files_are_private(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as store:
        await store.commit(Batch(log=[event(1)]))
        await store.backup(tmp_path / "copy.db")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["a.db", "a.db-wal", "a.db-shm", "copy.db"], 0o600)


async def test_durable_settings(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as store:
        assert store._connection is not None

        def pragmas(connection: sqlite3.Connection) -> list[Any]:
            names = ("journal_mode", "synchronous", "foreign_keys")
            return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

        assert await store._connection.run(pragmas) == ["wal", 2, 1]


async def test_backup_while_open(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as store:
        await store.commit(Batch(log=[event(1)]))
        await store.backup(tmp_path / "copy.db")
        await store.commit(Batch(log=[event(2)]))
        with pytest.raises(StoreError, match="exists already"):
            await store.backup(tmp_path / "copy.db")
    async with opened(tmp_path / "copy.db") as copy:
        assert [found.id for found in await copy.events(EventQuery())] == ["e1"]


# -- what cannot be opened


async def refusal(path: Path, **options: Any) -> StoreError:
    with pytest.raises(StoreError) as caught:
        async with opened(path, **options):
            pass
    assert caught.value.hint, "says what to do"
    return caught.value


async def test_missing_folder(tmp_path: Path) -> None:
    error = await refusal(tmp_path / "none" / "a.db")
    assert "folder" in error.message
    assert "does not exist" in error.message


async def test_folder_in_place_of_the_file(tmp_path: Path) -> None:
    assert "is a folder" in (await refusal(tmp_path)).message


async def test_memory_path() -> None:
    assert "memory store" in str(await refusal(Path(":memory:")))


async def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"this is a text, " * 100)
    assert "is not a SQLite database" in (await refusal(path)).message
    assert path.read_bytes() == b"this is a text, " * 100


async def test_somebody_elses_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE x (y)")
    assert "not one of EventCore's" in (await refusal(path)).message


async def test_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as store:
        await store.commit(Batch(log=[event(n, raw=b'"' + b"x" * 3000 + b'"') for n in range(50)]))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(StoreError, match="is damaged"):
        async with opened(path) as store:
            await store.events(EventQuery())


async def test_locked_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path):
        pass
    holder = script(
        """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        print("held", flush=True)
        sys.stdin.read()
        """,
        path,
        stdin=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert await anyio.to_thread.run_sync(holder.stdout.readline) == "held\n"
        assert "locked by another process" in (await refusal(path, busy_timeout=0.05)).message
    finally:
        holder.communicate(timeout=60)
    async with opened(path) as store:
        assert await store.commit(Batch(log=[event(1)])) == 1


async def test_commit_while_locked_fails_and_the_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, busy_timeout=0.05) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked by another process"):
                await store.commit(Batch(log=[event(1)]))
            assert await store.last_position() == 0
            other.execute("ROLLBACK")
        assert await store.commit(Batch(log=[event(2)])) == 1


OPEN_AND_REPORT = """
    import asyncio, concurrent.futures.thread, os, sys
    from contextlib import AsyncExitStack
    from eventcore.kernel.errors import StoreError
    from eventcore.storage.sqlite import SqliteStore

    if os.geteuid() == 0:  # root may write anywhere
        os.setgroups([])
        os.setuid(65534)

    async def main():
        async with AsyncExitStack() as stack:
            await SqliteStore(sys.argv[1]).start(stack)

    try:
        asyncio.run(main())
    except StoreError as error:
        print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_read_only_file(open_folder: Path) -> None:
    path = open_folder / "a.db"
    async with opened(path) as store:
        await store.commit(Batch(log=[event(1)]))
    path.chmod(0o444)
    open_folder.chmod(0o555)
    out, err = script(OPEN_AND_REPORT, path).communicate(timeout=60)
    open_folder.chmod(0o755)
    assert err == ""
    assert "is read-only" in out
    assert "writable for this user" in out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs root and the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_full_disk(small_disk: Path) -> None:
    async with opened(small_disk / "a.db") as store:
        assert await store.commit(Batch(log=[event(0)])) == 1
        filler = small_disk / "filler"
        filler.write_bytes(b"")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for _ in range(1024):
                file.write(b"x" * 4096)
        big = b'"' + b"x" * 100_000 + b'"'
        outcomes = await asyncio.gather(
            *(store.commit(Batch(log=[event(n, raw=big)])) for n in range(1, 6)), return_exceptions=True
        )
        assert all(isinstance(outcome, StoreError) for outcome in outcomes), outcomes
        assert "the disk is full" in str(outcomes[0])
        assert await store.last_position() == 1
        filler.unlink()
        assert await store.commit(Batch(log=[event(9)])) == 2
        assert [found.id for found in await store.events(EventQuery())] == ["e0", "e9"]


def test_trio_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            await SqliteStore(tmp_path / "a.db").start(stack)

    with pytest.raises(StoreError, match="asyncio only"):
        trio.run(main)


async def test_failed_start_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"no database, " * 100)
    store = SqliteStore(path)
    async with AsyncExitStack() as stack:
        with pytest.raises(StoreError):
            await store.start(stack)
        path.unlink()
        await store.start(stack)
        assert await store.commit(Batch(log=[event(1)])) == 1


# -- versions


def contents(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        rows += connection.execute("SELECT name, value FROM meta").fetchall()
        return [*rows, connection.execute("PRAGMA user_version").fetchone()]


def prepared(path: Path, steps: dict[int, str], fresh: str | None) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.prepare(connection, path, 1000.0, steps, fresh)


def test_migrated_equals_fresh(tmp_path: Path) -> None:
    prepared(tmp_path / "fresh.db", schema.migrations(), schema.fresh_schema())
    prepared(tmp_path / "migrated.db", schema.migrations(), None)
    assert contents(tmp_path / "fresh.db") == contents(tmp_path / "migrated.db")
    assert contents(tmp_path / "fresh.db")[-1] == (max(schema.migrations()),)


async def test_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    newest = max(schema.migrations())
    async with opened(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={newest + 1}")
    message = (await refusal(path)).message
    assert f"version {newest + 1}" in message
    assert f"up to {newest}" in message


async def test_older_version_is_copied_then_migrated(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path) as store:
        await store.commit(Batch(log=[event(1)]))
    before = contents(path)
    steps = {**schema.migrations(), 99: "CREATE TABLE more (x TEXT);\nINSERT INTO more VALUES ('a;b');"}
    prepared(path, steps, None)
    [copy] = tmp_path.glob("a.db.version-*")
    assert contents(copy) == before
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x FROM more").fetchall() == [("a;b",)]
        assert connection.execute("SELECT id FROM events").fetchall() == [("e1",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


async def test_failed_migration_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path):
        pass
    before = contents(path)
    with pytest.raises(sqlite3.OperationalError):
        prepared(path, {**schema.migrations(), 99: "CREATE TABLE more (x);\nDROP TABLE nothing;"}, None)
    assert contents(path) == before


@pytest.mark.parametrize(
    "query",
    [
        RunQuery("t"),
        RunQuery("t", "w"),
        RunQuery("t", statuses=("failed",)),
        RunQuery("t", "w", statuses=("completed",)),
        RunQuery("t", statuses=("completed", "failed", "running", "waiting")),
        RunQuery("t", "w", statuses=tuple(LIVE)),
        RunQuery("t", before="r000900"),
    ],
)
def test_a_page_of_runs_costs_the_same_however_many_are_over(tmp_path: Path, query: RunQuery) -> None:
    """Counted in the steps of SQLite's machine; a million rows once took a second, sorted for each page."""
    steps = {}
    for count in (100, 5000):
        with closing(sqlite3.connect(tmp_path / f"{count}.db", isolation_level=None)) as connection:
            schema.prepare(connection, tmp_path / "a.db", 0.0, schema.migrations(), schema.fresh_schema())
            runs = (
                Run(f"r{n:06}", "t", "w", "d", "failed" if n < 3 else "completed", b"{}", "a", (), 0.0, 0.0)
                for n in range(count)
            )
            connection.execute("BEGIN")
            connection.executemany(SQL["insert_run"], [run_row(run) for run in runs])
            connection.execute("COMMIT")
            taken = 0

            def count_step() -> None:
                nonlocal taken
                taken += 1

            connection.set_progress_handler(count_step, 10)
            assert query.statuses == tuple(LIVE) or runs_page(connection, query)
            connection.set_progress_handler(None, 0)
            steps[count] = taken
    assert steps[5000] <= 2 * steps[100] + 50


def test_every_statement_is_explained_and_valid(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as connection:
        schema.prepare(connection, tmp_path / "a.db", 0.0, schema.migrations(), schema.fresh_schema())
        add_functions(connection)
        for name, text in SQL.items():
            if name not in ("begin", "begin_read", "commit", "rollback"):
                parts = {"table": "events", "conditions": "1", "order": "ASC", "oldest": "at", "shown": "1"}
                filled = text.format(**parts, foreign="1, 2", by="type", what="id", index="")
                names = dict.fromkeys(("id", "tenant", "limit", "most", "words", "until", "owner", "now", "slug"), 1)
                names |= dict.fromkeys(("source", "after", "every", "name", "fence", "hash", "run", "before"), 1)
                names |= dict.fromkeys(("search", "model", "among", "due"), 1)
                values: Any = names | {"limit_key": 1} if ":" in filled else ("[]",) * filled.count("?")
                connection.execute(f"EXPLAIN {filled}", values)
    with pytest.raises(ValueError, match="lacks its comment"):
        parse("-- name: bare\nSELECT 1;\n")


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (EventQuery(tenant="default", types=("tick",)), "events_by_type (tenant=? AND type=?)"),
        (EventQuery(tenant="default", types=("tick",), run="r"), "events_by_run (run=?)"),
        (EventQuery(tenant="default", correlation_id="c"), "events_by_correlation (correlation_id=?)"),
        (EventQuery(tenant="default", source="/host"), "SCAN events"),
        (EventQuery(tenant="default", after=5, newest_first=True), "INTEGER PRIMARY KEY (rowid>?)"),
    ],
)
async def test_pages_follow_an_index(tmp_path: Path, query: EventQuery, index: str) -> None:
    """No page sorts the history; each is read in order of position from an index."""
    plans: list[str] = []
    async with opened(tmp_path / "a.db", readers=1) as store:
        await store.commit(Batch(log=[event(n, run="r") for n in range(9)]))
        executed: list[str] = []

        def trace(connection: sqlite3.Connection) -> None:
            connection.set_trace_callback(executed.append)

        def explain(connection: sqlite3.Connection) -> None:
            connection.set_trace_callback(None)
            for text in executed:
                if "FROM events WHERE" in text and "raw" in text:
                    plans.extend(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}"))

        await store._readers[0].run(trace)
        await store.events(query)
        await store._readers[0].run(explain)
    assert any(index in plan for plan in plans), plans
    assert not any("TEMP B-TREE" in plan for plan in plans), plans


# -- crashes


COMMIT_FOR_EVER = """
    import asyncio, sys
    from contextlib import AsyncExitStack
    from eventcore.kernel.event import Event
    from eventcore.kernel.faults import FaultPlan, kill_at
    from eventcore.kernel.records import Batch
    from eventcore.storage.sqlite import SqliteStore

    async def committer(store, number):
        for turn in range(10_000):
            position = await store.commit(Batch(log=[Event(f"{number}-{turn}", "tick", "/host", 1.0, b"{}")]))
            print(f"{position} {number}-{turn}", flush=True)

    async def main():
        faults = FaultPlan({sys.argv[2]: kill_at(int(sys.argv[3]))} if len(sys.argv) > 2 else {})
        async with AsyncExitStack() as stack:
            store = SqliteStore(sys.argv[1], faults=faults)
            await store.start(stack)
            await asyncio.gather(*(committer(store, number) for number in range(5)))

    asyncio.run(main())
"""


async def acknowledged_are_there(path: Path, lines: list[str]) -> int:
    """Check that what a killed process had printed is stored; return how many entries there are."""
    async with opened(path) as store:
        found = {event.position: event.id for event in await store.events(EventQuery(limit=10_000))}
        assert sorted(found) == list(range(1, len(found) + 1))
        for line in lines:
            position, id_ = line.split()
            assert found[int(position)] == id_
        assert await store.commit(Batch(log=[event(1)])) == len(found) + 1
    return len(found)


async def test_kill_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with script(COMMIT_FOR_EVER, path) as process:
        assert process.stdout is not None
        lines = [await anyio.to_thread.run_sync(process.stdout.readline) for _ in range(200)]
        process.kill()
        # Not communicate(): it would lose what readline has buffered.
        rest = await anyio.to_thread.run_sync(process.stdout.read)
    lines += [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    assert await acknowledged_are_there(path, lines) >= 200


@pytest.mark.parametrize(("point", "extra"), [("store.before_commit", 0), ("store.after_commit", 5)])
async def test_kill_at_the_fault_points(tmp_path: Path, point: str, extra: int) -> None:
    """Before COMMIT returns nothing of the group is there; after it all of it is, though nobody was told."""
    path = tmp_path / "a.db"
    process = script(COMMIT_FOR_EVER, path, point, 20)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == -9
    lines = out.splitlines()
    assert await acknowledged_are_there(path, lines) == len(lines) + extra


async def test_fault_before_commit_fails_the_group_and_stores_nothing(tmp_path: Path) -> None:
    def fail_once(hit: int) -> None:
        if hit == 1:
            raise RuntimeError("on purpose")

    async with opened(tmp_path / "a.db", faults=FaultPlan({"store.before_commit": fail_once})) as store:
        with pytest.raises(StoreError, match="on purpose"):
            await store.commit(Batch(log=[event(1)]))
        assert await store.commit(Batch(log=[event(2)])) == 1


# -- groups


async def test_concurrent_commits_share_transactions(tmp_path: Path) -> None:
    faults = FaultPlan()
    told: list[int] = []
    async with opened(tmp_path / "a.db", faults=faults, group_limit=40) as store:
        store.watch(lambda entries: told.append(len(entries)))
        await asyncio.gather(*(store.commit(Batch(log=[event(n)])) for n in range(100)))
    assert faults.hits["store.before_commit"] == faults.hits["store.after_commit"] == 3, "40 + 40 + 20"
    assert told == [1] * 100


async def test_run_moves_and_ends_within_a_group(tmp_path: Path) -> None:
    """Ends and moves are different statements; the order of commits decides all the same."""
    statuses = ("waiting", "completed", "running", "waiting", "failed")
    faults = FaultPlan()
    for count in range(1, len(statuses) + 1):
        async with opened(tmp_path / f"{count}.db", faults=faults) as store:
            run = Run("r", "default", "s", "d", "running", b"{}", "u", (), 1.0, 1.0)
            changes = [(Batch(runs=[run]), [])] + [
                (Batch(moves=[RunMove("r", status, version + 1, 2.0)]), [RunAt("r", version)])
                for version, status in enumerate(statuses[:count], 1)
            ]
            await asyncio.gather(*(store.commit(batch, guards) for batch, guards in changes))
            found = await store.run("r")
            assert found is not None
            assert (found.status, found.version) == (statuses[count - 1], count + 1)
            assert len(await store.claim("one", 1.0, 1.0)) == (found.status in ("running", "waiting"))
    assert faults.hits["store.before_commit"] == len(statuses), "each in one group"


async def test_unstorable_batch_fails_alone(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as store:
        batches = [Batch(log=[event(n)]) for n in range(6)]
        batches[1] = Batch(log=[event(1, subject="lone surrogate \ud800")])
        batches[2] = Batch(log=[event(2, hops=2**70)])
        batches[3] = Batch(log=[event(3, actor=None)])
        outcomes = await asyncio.gather(*map(store.commit, batches), return_exceptions=True)
        assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [1, 2, 3]
        assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, StoreError)] == [1, 2, 3]
        assert [found.id for found in await store.events(EventQuery())] == ["e0", "e4", "e5"]


async def test_recorded_events_travel_together_and_fail_alone(tmp_path: Path) -> None:
    faults = FaultPlan()
    told: list[list[str]] = []
    async with opened(tmp_path / "a.db", faults=faults, group_limit=40) as store:
        store.watch(lambda entries: told.append([entry.id for entry in entries if isinstance(entry, Event)]))
        assert await asyncio.gather(*(store.record(event(n)) for n in range(100))) == list(range(1, 101))
        assert faults.hits["store.before_commit"] == 3, "40 + 40 + 20"
        assert [len(entries) for entries in told] == [40, 40, 20]
        bad = {1: {"subject": "lone surrogate \ud800"}, 2: {"hops": 2**70}, 3: {"actor": None}}
        made = [event(200 + n, **bad.get(n, {})) for n in range(6)]
        work = [*map(store.record, made), store.commit(Batch(log=[event(300)]))]
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, StoreError)] == [1, 2, 3]
        assert len({id(outcome) for outcome in outcomes}) == 7, "no error is shared"
        stored = {found.id: found.position for found in await store.events(EventQuery(after=100))}
        assert stored == {f"e{200 + n}": outcomes[n] for n in (0, 4, 5)} | {"e300": outcomes[6]}
        assert [id_ for entries in told[3:] for id_ in entries] == sorted(stored, key=lambda id_: stored[id_])


async def test_cancelled_committer_has_committed(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as store:
        task = asyncio.create_task(store.commit(Batch(log=[event(1)])))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.commit(Batch(log=[event(2)])) == 2
        assert await store.event("e1") is not None


async def test_closing_writes_what_is_waiting(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        store = SqliteStore(tmp_path / "a.db", group_limit=2)
        await store.start(stack)
        tasks = [asyncio.create_task(store.commit(Batch(log=[event(n)]))) for n in range(9)]
        tasks += [asyncio.create_task(store.record(event(n))) for n in range(9, 15)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == list(range(1, 16))


async def test_torn_down_writer_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as store:
        tasks = [asyncio.create_task(store.commit(Batch(log=[event(n)]))) for n in range(9)]
        tasks += [asyncio.create_task(store.record(event(n))) for n in range(9, 15)]
        await asyncio.sleep(0)
        assert store._writer is not None
        store._writer._task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, StoreError) for outcome in outcomes)


async def test_conflicts_do_not_share_one_error(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as store:
        work = (store.commit(Batch(), [RunAt("nobody", 1)]) for _ in range(3))
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        assert all(isinstance(outcome, Conflict) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 3


# -- what we expect of aiosqlite


async def test_connection_runs_a_function_in_its_thread(tmp_path: Path) -> None:
    """`Connection.run` builds on protected members of aiosqlite; this says which, and what they must do."""
    connection = await Connection(tmp_path / "a.db", lambda: sqlite3.connect(tmp_path / "a.db")).opened()
    assert isinstance(connection, aiosqlite.Connection)
    assert connection._thread.daemon
    trips: list[object] = []
    queue = connection._tx
    connection._tx = SimpleNamespace(put_nowait=lambda item: (trips.append(item), queue.put_nowait(item)))
    assert await connection.run(lambda raw, text: raw.execute(text).fetchone(), "SELECT 7") == (7,)
    assert len(trips) == 1, "one trip to the thread"
    with pytest.raises(StoreError, match="no such table: missing"):
        await connection.run(lambda raw: raw.execute("SELECT * FROM missing"))
    await connection.close()
    with pytest.raises(StoreError):
        await connection.run(lambda raw: None)


def test_no_two_migrations_lead_to_one_version() -> None:
    files = [path.name for path in (HERE / "migrations").glob("*.sql")]
    assert len(files) == len(schema.migrations()), f"two have one number: {sorted(files)}"
