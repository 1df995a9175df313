"""Threads, locks, pools, and values of a thread's own."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

EXPECTED = {"pool": [0, 1, 4, 9], "counted": 400, "local": None}


def run(params):
    with ThreadPoolExecutor(4) as pool:
        squares = list(pool.map(lambda n: n * n, range(4)))
    lock, done, count = threading.Lock(), queue.Queue(), [0]

    def work():
        for _ in range(100):
            with lock:
                count[0] += 1
        done.put(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    local = threading.local()
    return {"pool": squares, "counted": count[0], "local": getattr(local, "x", None)}
