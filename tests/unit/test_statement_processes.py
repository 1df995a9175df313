"""The processes that run statements of plugins, and what a stranger's SQL may do to them, to others and to the disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.keeping import DatabaseSettings
from eventcore.plugins.databases import Databases
from eventcore.plugins.sandbox.linux import landlock
from eventcore.plugins.statement_process import Bounds, StatementProcess

pytestmark = pytest.mark.anyio
ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n"
#: One step of SQLite that nothing but the end of its process stops.
STUCK = "select hex(zeroblob(500000)) like '%" + "0" * 40_000 + "1%' as x"
MIB = 1 << 20


@pytest.fixture
def anyio_backend() -> str:
    """One is enough: processes and threads are the same."""
    return "asyncio"


def _databases(folder: Path, **settings: Any) -> Databases:
    return Databases(DatabaseSettings(**{"timeout": 60, "size_mb": 1} | settings), folder, folder / "own")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Databases]:
    with closing(_databases(tmp_path)) as found:
        yield found


def _statement_processes() -> set[int]:
    """Those that live and are children of this process."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(parent[1]) == os.getpid() and b"statements" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


async def test_one_plugin_leaves_the_others_room(tmp_path: Path) -> None:
    with closing(_databases(tmp_path, timeout=60)) as kept:
        greedy, other = kept.place("default", "greedy", "main"), kept.place("default", "other", "main")
        await kept.execute(other, [("create table t (x)", [])])

        async def endless() -> None:
            await kept.fetch(greedy, ENDLESS, [], 1)

        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(endless)
            await anyio.sleep(0.2)  # they are all begun; what they wait for is theirs alone
            with anyio.fail_after(40):
                assert await kept.fetch(other, "select count(*) as n from t", [], 1) == [{"n": 0}]
            tasks.cancel_scope.cancel()


async def test_who_leaves_is_not_waited_for(tmp_path: Path) -> None:
    with closing(_databases(tmp_path, timeout=50)) as kept:
        began = time.monotonic()
        with anyio.move_on_after(2):
            await kept.fetch(kept.place("default", "shop", "main"), ENDLESS, [], 1)
        assert time.monotonic() - began < 20
        with anyio.fail_after(10):
            while _statement_processes():
                await anyio.sleep(0.02)


async def test_closing_ends_what_is_at_work(tmp_path: Path) -> None:
    kept = _databases(tmp_path, timeout=50)
    place = kept.place("default", "shop", "main")
    await kept.execute(place, [("create table t (x)", [])])

    async def ask() -> None:
        with pytest.raises(InvalidInput, match="process ended"):
            await kept.fetch(place, ENDLESS, [], 1)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(0.3)
            kept.close()
    assert not _statement_processes()


@pytest.mark.parametrize("home", [True, False], ids=["files", "memory"])
async def test_a_plugin_has_so_many_databases(tmp_path: Path, home: bool) -> None:
    settings = DatabaseSettings(most=3, timeout=60)
    make = [("create table t (x)", [])]
    with closing(Databases(settings, None, tmp_path / "own" if home else None)) as kept:
        for name in ("a", "b", "c"):
            await kept.execute(kept.place("default", "shop", name), make)
        with pytest.raises(InvalidInput, match="3 databases, which are as many"):
            await kept.execute(kept.place("default", "shop", "d"), make)
        await kept.execute(kept.place("other", "shop", "d"), make)
        await kept.execute(kept.place("default", "shop", "a"), [("drop table t", [])])
        if home:
            for number in range(50):  # to look for what is not there is free, and leaves nothing behind
                await kept.fetch(kept.place("default", "shop", f"n{number}"), "select 1", [], 1)
        assert await kept.remove("default", "shop") == 3
        await kept.execute(kept.place("default", "shop", "d"), make)
    if home:
        fewer = settings.model_copy(update={"most": 1})
        with (
            closing(Databases(fewer, None, tmp_path / "own")) as kept,
            pytest.raises(InvalidInput, match="1 databases"),  # counted over a restart
        ):
            await kept.execute(kept.place("default", "shop", "e"), make)


async def test_what_is_written_ahead_has_an_end(kept: Databases, tmp_path: Path) -> None:
    """Who reads keeps the log of a database from being begun anew; it grew by all that was written meanwhile."""
    place = kept.place("default", "shop", "main")
    await kept.execute(place, [("create table t (x)", []), ("insert into t values (zeroblob(700000))", [])])
    assert place.path is not None
    log = place.path.with_name("main.db-wal")
    with closing(sqlite3.connect(place.path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from t").fetchone()
        refused = ""
        while not refused and log.stat().st_size < 8 * MIB:
            try:
                await kept.execute(place, [("update t set x = randomblob(700000)", [])])
            except InvalidInput as error:
                refused = str(error)
        assert "other statements still read" in refused
        assert log.stat().st_size <= 3 * MIB + 65_536
    await kept.execute(place, [("update t set x = 1", [])])
    assert await kept.fetch(place, "select x from t", [], 1) == [{"x": 1}]


async def test_a_writer_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    """Once with a log ahead, once with a journal, which a connection that only reads cannot undo."""
    with closing(sqlite3.connect(tmp_path / "sales.db")) as file:
        file.executescript("create table t (x); insert into t values (1);")
    settings = {"timeout": 0.5, "size_mb": 64, "shared": {"sales": "sales.db"}}
    with closing(_databases(tmp_path, **settings)) as kept:
        own, shared = kept.place("default", "shop", "main"), kept.place("default", "shop", "sales")
        await kept.execute(own, [("create table t (x)", []), ("insert into t values (1)", [])])
        for place in (own, shared):
            fill = [("insert into t values (zeroblob(900000))", [])] * 12
            with pytest.raises(InvalidInput, match="ran over"):
                await kept.execute(place, [*fill, (STUCK, [])])
            assert await kept.fetch(place, "select x from t", [], 10) == [{"x": 1}], place.key
            await kept.execute(place, [("insert into t values (2)", []), ("delete from t where x = 2", [])])


async def test_it_reaches_one_folder_and_no_system_calls_beyond(tmp_path: Path) -> None:
    """Asked as if SQLite obeyed a stranger: for another plugin's file, for one that a link leads to, for a socket."""
    with suppress(OSError):
        if landlock.abi() < 1:
            pytest.skip("the kernel has no Landlock; use one from 5.13 on")
    for name in ("mine", "yours"):
        (tmp_path / name).mkdir()
        with closing(sqlite3.connect(tmp_path / name / "a.db")) as file:
            file.execute("create table t (x)")
    (tmp_path / "mine" / "link.db").symlink_to(tmp_path / "yours" / "a.db")
    process = StatementProcess(Bounds.of(tmp_path / "mine", 8 * MIB))
    try:
        for path, fits in (("mine/a.db", True), ("yours/a.db", False), ("mine/link.db", False), ("new.db", False)):
            asked = {"address": f"{(tmp_path / path).as_uri()}?mode=rwc", "write": True, "log_ahead": True}
            asked |= {"kept": False, "size": MIB, "seconds": 30, "name": "a"}
            answer = process.ask(asked | {"statements": [["insert into t values (1)", []]]})
            assert ("ok" in answer) is fits, (path, answer)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Seccomp:\t2" in status
        assert "NoNewPrivs:\t1" in status
    finally:
        process.close()
    assert not (tmp_path / "new.db").exists()


async def test_a_link_that_a_plugin_puts_in_place_of_a_listed_file_is_not_followed(tmp_path: Path) -> None:
    for name in ("granted/sales.db", "secret.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(tmp_path / name)) as file:
            file.executescript(f"create table t (x); insert into t values ('{name}');")
    with closing(_databases(tmp_path, shared={"sales": "granted/sales.db"})) as kept:
        rows = await kept.fetch(kept.place("default", "shop", "sales"), "select x from t", [], 1)
        assert rows == [{"x": "granted/sales.db"}]
        (tmp_path / "granted" / "sales.db").unlink()
        (tmp_path / "granted" / "sales.db").symlink_to(tmp_path / "secret.db")
        with pytest.raises(InvalidInput, match="unable to open"):
            await kept.fetch(kept.place("default", "shop", "sales"), "select x from t", [], 1)


async def test_a_large_change_undoes_itself_within_the_folder(tmp_path: Path) -> None:
    """What one statement may have to undo is kept in a file, in a folder that the process must be able to reach."""
    with closing(_databases(tmp_path, size_mb=64)) as kept:
        place = kept.place("default", "shop", "main")
        rows = "with recursive n(i) as (select 1 union all select i + 1 from n limit 9000) "
        rows += "select i, hex(zeroblob(200)) from n"
        await kept.execute(place, [("create table t (i integer unique, x)", []), (f"insert into t {rows}", [])])
        change = "update t set i = case when i = 9000 then -1 else -i end, x = x || 'y'"
        with pytest.raises(InvalidInput, match="UNIQUE"):
            await kept.execute(
                place, [("update t set x = x || 'z'", []), ("update t set i = i + 1 where 0", []), (change, [])]
            )
        await kept.execute(place, [("update t set x = x || 'z'", []), ("update or fail t set x = x || 'w'", [])])
        assert await kept.fetch(place, "select count(*) as n from t where x like '%zw'", [], 1) == [{"n": 9000}]
        assert place.path is not None
        assert {path.name for path in place.path.parent.iterdir()} <= {"main.db", "main.db-wal", "main.db-shm"}


#: A host that asks an endless statement, with a minute to it.
HOST = """
import sys, anyio
from pathlib import Path
from eventcore.kernel.keeping import DatabaseSettings
from eventcore.plugins.databases import Databases
async def main():
    kept = Databases(DatabaseSettings(timeout=60), None, Path(sys.argv[1]))
    place = kept.place("default", "shop", "main")
    await kept.execute(place, [("create table t (x)", []), ("insert into t values (1)", [])])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kept.fetch, place, "select 1", [], 1)
        tasks.start_soon(kept.execute, place, [("insert into t " + sys.argv[2], [])])
        await anyio.sleep(0.5)
        print("ready", flush=True)
        await anyio.sleep(60)
anyio.run(main)
"""


async def test_a_host_that_is_killed_leaves_no_process_and_a_whole_file(tmp_path: Path) -> None:
    host = subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path), ENDLESS], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    assert host.stdout.readline() == "ready\n"
    found = []
    for child in Path(f"/proc/{host.pid}/task").glob("*/children"):
        found += [os.pidfd_open(int(word)) for word in child.read_text().split()]
    assert found
    host.send_signal(signal.SIGKILL)
    host.wait()
    host.stdout.close()
    for pidfd in found:
        with anyio.fail_after(30):
            await anyio.wait_readable(pidfd)
        os.close(pidfd)
    with closing(sqlite3.connect(tmp_path / "default" / "shop" / "main.db", isolation_level=None)) as file:
        assert file.execute("pragma integrity_check").fetchone() == ("ok",)
        file.execute("begin exclusive")
        assert file.execute("select x from t").fetchall() == [(1,)]


async def test_an_answer_that_is_none_ends_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with closing(_databases(tmp_path)) as kept:
        place = kept.place("default", "shop", "main")
        for answer in ([1], {"error": "denied"}, {"error": [], "message": "", "hint": None}, "text", {}):
            monkeypatch.setattr("eventcore.plugins.statement_process.receive", lambda *_, said=answer: said)
            with pytest.raises(InvalidInput):
                await kept.fetch(place, "select 1 as x", [], 1)
        monkeypatch.undo()
        assert await kept.fetch(place, "select 1 as x", [], 1) == [{"x": 1}]
