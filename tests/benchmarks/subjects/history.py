"""The last 100 events of a type out of many: python history.py FOLDER COUNT...

For each COUNT a database of the schema that the store has now, made once and kept in FOLDER. A round `COUNT` gives the
median times of the same page through `History` and by raw sqlite3, both with all payloads decoded.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import statistics
import sys
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path

from eventcore.bus.history import History
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.context import CallContext
from eventcore.storage.sqlite import SqliteStore
from eventcore.storage.sqlite.schema import fresh_schema, migrations, statements

CALLS, LAST, TYPES = 40, 100, 20
TYPE = "kind_7"
_FILL = f"""
insert into events (position, id, type, source, at, raw, tenant, actor, subject, correlation_id, hops, schema_version)
with recursive n (i) as (select 1 union all select i + 1 from n where i < :count)
select i, printf('0190%04x-%04x-7000-8000-%012x', i >> 16, i & 65535, i), 'kind_' || (i % {TYPES}), '/host',
  1.7e9 + i / 100.0,
  cast(printf('{{"order":%d,"customer":"c-%d","lines":[{{"sku":"A-%d","count":2}}],"paid":true}}', i, i % 997, i % 89)
    as blob),
  'default', 'operator', 'order-' || (i % 50000), printf('0190%04x-%04x-7000-8000-%012x', i >> 16, i & 65535, i), 0, 1
from n
"""
_PAGE = """
select position, id, type, source, at, raw, tenant, actor, subject, key, run, correlation_id, causation_id, hops,
  traceparent, idempotency_key, schema_version, path, ce_type, raw_extensions
from events where tenant = 'default' and type = ? order by position desc limit ?
"""


def database(folder: Path, count: int) -> Path:
    """A file with so many events; made if it is not there. Its name changes with the schema and what is filled in."""
    schema = fresh_schema()
    digest = hashlib.sha256((schema + _FILL).encode()).hexdigest()[:8]
    path = folder / f"history-{count}-{digest}.db"
    if path.exists():
        return path
    half = path.with_suffix(".half")
    half.unlink(missing_ok=True)
    parts = list(statements(schema))
    # Indexes are made after the rows, which is several times faster.
    late = [part for part in parts if "CREATE INDEX events_" in part]
    began = time.perf_counter()
    with closing(sqlite3.connect(half, isolation_level=None)) as connection:
        for setting in ("journal_mode=off", "synchronous=off", "cache_size=-500000"):
            connection.execute(f"pragma {setting}")
        connection.execute("begin")
        for part in parts:
            if part not in late:
                connection.execute(part)
        connection.execute(_FILL, {"count": count})
        for part in late:
            connection.execute(part)
        connection.execute(f"pragma user_version={max(migrations())}")
        connection.execute("commit")
    half.rename(path)
    print(f"made {path.name} in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return path


async def ours(history: History) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        found = [event.data async for event in history.query(type=TYPE, newest_first=True, limit=LAST)]
        times.append(time.perf_counter() - began)
        assert len(found) == LAST
    return statistics.median(times)


def raw(connection: sqlite3.Connection) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        found = [json.loads(row[5]) for row in connection.execute(_PAGE, (TYPE, LAST))]
        times.append(time.perf_counter() - began)
        assert len(found) == LAST
    return statistics.median(times)


async def main(folder: Path, counts: list[str]) -> None:
    paths = {text: database(folder, int(text)) for text in counts}
    async with AsyncExitStack() as stack:
        histories, connections = {}, {}
        for text, path in paths.items():
            store = SqliteStore(path)
            await store.start(stack)
            histories[text] = History(store, SystemClock(), CallContext, lambda event: event)
            connections[text] = stack.enter_context(closing(sqlite3.connect(path)))
            await ours(histories[text])
            raw(connections[text])
        print(json.dumps({"ready": True}), flush=True)
        while text := (await asyncio.to_thread(sys.stdin.readline)).strip():
            answer = {"ours": await ours(histories[text]), "peer": raw(connections[text])}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:]))
