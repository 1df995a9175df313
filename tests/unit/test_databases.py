"""Databases of plugins: what a statement may do is decided by SQLite, for each of the two permissions apart."""

from __future__ import annotations

import resource
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import caller
from eventcore.kernel.errors import InvalidInput, PermissionDenied, PluginFailed
from eventcore.kernel.keeping import DatabaseSettings
from eventcore.operations import perform
from eventcore.plugins.databases import Databases, Place
from tests.unit.test_roles_everywhere import plant

pytestmark = pytest.mark.anyio


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Databases]:
    found = Databases(DatabaseSettings(timeout=60, size_mb=1), tmp_path, tmp_path / "own")
    yield found
    found.close()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Databases]:
    """The same files, for statements that would never end; others may take longer than this on a busy machine."""
    found = Databases(DatabaseSettings(timeout=0.5, size_mb=1), tmp_path, tmp_path / "own")
    yield found
    found.close()


@pytest.fixture
async def place(kept: Databases) -> Place:
    place = kept.place("default", "shop", "main")
    await kept.execute(place, [("create table t (id integer primary key, name text, more)", [])])
    await kept.execute(place, [("insert into t (name) values (?)", [name]) for name in ("a", "b")])
    return place


async def test_values_go_in_and_come_out(kept: Databases, place: Place) -> None:
    done = await kept.execute(
        place, [("insert into t (name, more) values (:n, :m)", {"n": "c", "m": {"base64": "AAE="}})]
    )
    assert done == {"changed": 1, "last_id": 3}
    rows = await kept.fetch(place, "select * from t where id = ?", [3], 10)
    assert rows == [{"id": 3, "name": "c", "more": {"base64": "AAE="}}]
    assert await kept.fetch(place, "select 1e999 as x, null as y, 'é' as z", [], 1) == [
        {"x": None, "y": None, "z": "é"}
    ]
    assert (await kept.execute(place, [("update t set name = 'x'", [])]))["changed"] == 3


async def test_a_transaction_is_all_or_nothing(kept: Databases, place: Place) -> None:
    with pytest.raises(InvalidInput, match="UNIQUE"):
        await kept.execute(place, [("insert into t (id) values (9)", []), ("insert into t (id) values (1)", [])])
    assert await kept.fetch(place, "select count(*) as n from t", [], 1) == [{"n": 2}]


READS_THAT_CHANGE = [
    "insert into t (name) values ('x')", "update t set name = 'x'", "delete from t", "drop table t",
    "create table u (x)", "create temp table u (x)", "insert into t (name) values ('x') returning id", "vacuum",
    "attach 'x.db' as x", "pragma journal_mode=delete", "pragma user_version=5", "pragma writable_schema=1", "begin",
    "savepoint s", "select load_extension('x')", "analyze", "replace into t (id) values (1)",
    "with x as (select 1) delete from t", "create trigger g after insert on t begin select 1; end",
]  # fmt: skip


@pytest.mark.parametrize("sql", READS_THAT_CHANGE)
async def test_a_read_changes_nothing(kept: Databases, place: Place, sql: str) -> None:
    assert place.path is not None
    before = place.path.read_bytes()
    with pytest.raises((PermissionDenied, InvalidInput)) as caught:
        await kept.fetch(place, sql, [], 10)
    assert isinstance(caught.value, PermissionDenied) or "not authorized" in str(caught.value), caught.value
    assert place.path.read_bytes() == before


NEVER = [
    "attach 'other.db' as other", "detach main", "pragma journal_mode=off", "pragma trusted_schema=on",
    "pragma writable_schema=on", "select load_extension('x')", "commit", "begin", "rollback; attach 'x' as x",
    "vacuum into 'copy.db'", "pragma temp_store_directory='/tmp'", "select 1; select 2",
    "create virtual table v using csv(filename='/etc/passwd')", "pragma max_page_count=1000000",
]  # fmt: skip


@pytest.mark.parametrize("sql", NEVER)
async def test_a_write_reaches_nothing_else(kept: Databases, place: Place, sql: str, tmp_path: Path) -> None:
    with pytest.raises((PermissionDenied, InvalidInput)):
        await kept.execute(place, [(sql, [])])
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files <= {"main.db", "main.db-wal", "main.db-shm"}
    assert await kept.fetch(place, "select count(*) as n from t", [], 1) == [{"n": 2}]


ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select "


async def test_time_rows_and_sizes_are_bounded(kept: Databases, hasty: Databases, place: Place) -> None:
    began = anyio.current_time()
    with pytest.raises(InvalidInput, match=r"ran over its 0\.5 s"):
        await hasty.fetch(place, ENDLESS + "max(x) from n", [], 10)
    with pytest.raises(InvalidInput, match=r"ran over its 0\.5 s"):
        await hasty.execute(place, [("insert into t (name) " + ENDLESS + "max(x) from n", [])])
    assert anyio.current_time() - began < 30
    with pytest.raises(InvalidInput, match="more than 10 rows"):
        await kept.fetch(place, ENDLESS + "x from n", [], 10)
    with pytest.raises(InvalidInput, match=r"too big|limit"):
        await kept.fetch(place, "select hex(zeroblob(900000000)) as x", [], 10)
    with pytest.raises(InvalidInput, match="limit is"):
        await kept.fetch(place, "select printf('%900000c', 'x') as x", [], 10)
    with pytest.raises(InvalidInput, match="has its 1 MiB"):
        await kept.execute(place, [("insert into t (more) values (zeroblob(500000))", [])] * 4)
    for values in ([object()], [[1]], {"a": {"b": 1}}, [{"base64": "!"}], "text", [1] * 1001):
        with pytest.raises(InvalidInput):
            await kept.fetch(place, "select ?", values, 10)
    for sql in ("", "   ", 5, "select", "x" * 200_000, "selec 1"):
        with pytest.raises(InvalidInput):
            await kept.fetch(place, sql, [], 10)


MANY = "with recursive n(x) as (select 1 union all select x + 1 from n limit 5000) "
BLOB = "randomblob(1000000)"
#: Each is one step, or few, of SQLite's machine, between which nobody can stop it, or takes memory as fast as it can.
DEAR = {
    "rows": MANY + f"select {BLOB} as x from n",
    "columns": "select " + ", ".join([BLOB] * 900),
    "sorting": MANY + f"select 1 as x from n order by {BLOB}",
    "a queue": f"with recursive c(x) as (select {BLOB} union all select {BLOB} from c) select count(*) from c, c as d",
    "a search": "select instr(hex(zeroblob(500000)), hex(zeroblob(250000)) || '1') as x",
    "a pattern": "select hex(zeroblob(500000)) like '%" + "0" * 40_000 + "1%' as x",
}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # processes and threads are the same
@pytest.mark.parametrize("sql", DEAR.values(), ids=DEAR)
async def test_a_statement_costs_the_host_neither_memory_nor_a_thread(
    kept: Databases, hasty: Databases, place: Place, sql: str
) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, anyio.current_time()
    with pytest.raises(InvalidInput, match=r"ran over its 0\.5 s|MiB of memory|limit is|can hold"):
        await hasty.fetch(place, sql, [], 10_000)
    assert anyio.current_time() - began < 8  # as a thread of the host, 12 s and more, and gigabytes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
    assert len(await kept.fetch(place, "select * from t", [], 10)) == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # processes and threads are the same
async def test_a_view_of_views_is_ended_while_it_is_compiled(kept: Databases, hasty: Databases, place: Place) -> None:
    await kept.execute(place, [("create view v0 as select 1 as x", [])])
    for i in range(1, 25):
        sql = f"create view v{i} as select * from v{i - 1} union all select * from v{i - 1}"
        await kept.execute(place, [(sql, [])])
    began = anyio.current_time()
    with pytest.raises(InvalidInput):
        await hasty.fetch(place, "select count(*) as n from v24", [], 10)
    assert anyio.current_time() - began < 8
    assert len(await kept.fetch(place, "select * from t", [], 10)) == 2


async def test_databases_are_apart_by_tenant_plugin_and_name(kept: Databases, place: Place) -> None:
    for other in (("default", "shop", "other"), ("default", "bar", "main"), ("acme", "shop", "main")):
        with pytest.raises(InvalidInput, match="no such table"):
            await kept.fetch(kept.place(*other), "select * from t", [], 10)
    for name in ("../main", "", "A", "a/b", None, "x" * 65):
        with pytest.raises(InvalidInput, match="no name of a database"):
            kept.place("default", "shop", name)


async def test_many_at_once(kept: Databases, place: Place) -> None:
    async def add() -> None:
        for _ in range(10):
            await kept.execute(place, [("insert into t (name) values ('x')", [])])
            await kept.fetch(place, "select count(*) from t", [], 1)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(add)
    assert await kept.fetch(place, "select count(*) as n from t", [], 1) == [{"n": 82}]


async def test_without_a_home_they_are_in_memory() -> None:
    kept = Databases(DatabaseSettings(), None, None)
    place = kept.place("default", "shop", "main")
    assert await kept.fetch(place, "select 1 as x", [], 1) == [{"x": 1}]
    await kept.execute(place, [("create table t (x)", []), ("insert into t values (5)", [])])
    assert await kept.fetch(place, "select * from t", [], 1) == [{"x": 5}]
    with pytest.raises(PermissionDenied):
        await kept.fetch(place, "delete from t", [], 1)
    with pytest.raises(InvalidInput):
        await kept.execute(place, [("delete from t", []), ("nonsense", [])])
    assert await kept.fetch(place, "select * from t", [], 1) == [{"x": 5}]
    kept.close()


CODE = """
    from eventcore.sdk import ctx
    async def run(params):
        db = ctx.db(params.get("name", "main"))
        return {"rows": await (db.fetch if params["do"] == "fetch" else db.execute)(params["sql"])}
"""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite
@pytest.mark.req("F5")
async def test_read_and_write_apart(tmp_path: Path, anyio_backend: str) -> None:
    (tmp_path / "eventcore.toml").write_text('[databases.shared]\nmain = "sales.db"\nsecret = "secret.db"\n')
    for name in ("sales", "secret"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as file, file:
            file.execute("create table orders (id)")
            file.execute("insert into orders values (7)")
    with anyio.fail_after(100):
        async with EventCore(tmp_path) as core:
            asks = {"database_access": ["main"]}
            plant(core, tmp_path / "plugins/clerk", CODE, permissions=asks)
            await core.plugins.enable("clerk", grants=["database_read", "database_write"])

            async def do(verb: str, sql: str, name: str = "main") -> Any:
                params = {"do": verb, "sql": sql, "name": name}
                return (await core.plugins.run("clerk", params, context=caller("user:ada", ["user"])))["rows"]

            assert await do("fetch", "select * from orders") == [{"id": 7}]
            with pytest.raises(PluginFailed, match="the database main refuses the statement"):
                await do("fetch", "insert into orders values (8)")
            [event] = [event async for event in core.history.query(type="permission_denied")]
            assert (event.data["permission"], event.data["database"]) == ("database_write", "main")
            assert await do("execute", "insert into orders values (8)") == {"changed": 1, "last_id": 2}
            assert await do("fetch", "select max(id) as id from orders") == [{"id": 8}]
            with pytest.raises(PluginFailed, match=r"does not name it in permissions\.database_access"):
                await do("fetch", "select * from orders", name="secret")
            await do("execute", "create table notes (x)", name="own")
            assert (tmp_path / ".eventcore/databases/default/clerk/own.db").is_file()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite
async def test_what_is_kept_for_a_plugin_is_forgotten(tmp_path: Path, anyio_backend: str) -> None:
    code = """
        from eventcore.sdk import ctx
        async def run(params):
            await ctx.db("one").execute("create table t (x)")
            await ctx.memory.write("note", {})
            await ctx.schedule("later", after=3600)
        def note(event): pass
    """
    (tmp_path / "eventcore.toml").write_text("")
    asks = ["database_read", "database_write", "memory_write", "scheduler"]
    with anyio.fail_after(100):
        async with EventCore(tmp_path) as core:
            for name in ("keeper", "other"):
                plant(core, tmp_path / "plugins" / name, code, permissions=asks)
                await core.plugins.enable(name, grants=asks)
                await core.plugins.run(name)
                hook = {"name": name, "events": ["workflow_started"], "callback": "note"}
                await perform(core.engine, "plugins.hook", hook, core.bus.emit)
            each = {"memories": 1, "plans": 1, "databases": 1, "hooks": 1}
            assert await core.plugins.forget("keeper") == each
            assert await core.plugins.forget("keeper") == dict.fromkeys(each, 0)
            assert await core.plugins.forget("other") == each


async def test_a_process_that_cannot_begin_is_no_slow_statement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = Databases(DatabaseSettings(), None, tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InvalidInput, match="was not carried out: its process ended with 1"):
        await databases.fetch(databases.place("t", "p", "d"), "SELECT 1", [], 1)
    databases.close()
