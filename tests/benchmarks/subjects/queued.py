"""Durable queues of others, each item put, taken and acknowledged with fsync: python queued.py NAME FOLDER.

100 publishers are 100 threads; where one thread that puts everything is faster (SQLite's lock is waited for by trying
again), that is measured instead. One thread takes the items. Needs no EventCore.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = 1_000
WARM_UP = 200


def huey(folder: Path) -> tuple[Callable[[int], Any], Callable[[], bool]]:
    from huey import SqliteHuey

    app = SqliteHuey(filename=str(folder / "huey.db"), fsync=True, results=False, timeout=60)
    assert app.storage.sql("pragma synchronous", results=True)[0][0] == 2

    @app.task()
    def count(number: int) -> None:
        return None

    def take() -> bool:
        task = app.dequeue()
        if task is not None:
            app.execute(task)
        return task is not None

    return count, take


def persist_queue(folder: Path) -> tuple[Callable[[int], Any], Callable[[], bool]]:
    from persistqueue import Empty, SQLiteAckQueue

    items = SQLiteAckQueue(str(folder / "persist"), multithreading=True, auto_commit=True, timeout=60)
    assert items._putter.execute("pragma synchronous").fetchone()[0] == 2  # fsync at each commit, also with a WAL

    def take() -> bool:
        try:
            item = items.get(block=False)
        except Empty:
            return False
        items.ack(item)
        return True

    return lambda number: items.put({"order": number}), take


def rate(put: Callable[[int], Any], take: Callable[[], bool], publishers: int, events: int) -> float:
    def publish(number: int) -> None:
        for at in range(number, events, publishers):
            put(at)

    def consume() -> None:
        taken = 0
        while taken < events:
            if take():
                taken += 1
            else:
                time.sleep(0.0005)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(publishers)]
    threads.append(threading.Thread(target=consume))
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return events / (time.perf_counter() - began)


def main(name: str, folder: Path) -> None:
    put, take = {"huey": huey, "persist-queue": persist_queue}[name](folder)
    rates = {publishers: rate(put, take, publishers, WARM_UP) for publishers in (1, 100)}
    fastest = max(rates, key=lambda publishers: rates[publishers])
    print(json.dumps({"ready": True, "threads": fastest, "rates": rates}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"rate": rate(put, take, fastest, EVENTS)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
