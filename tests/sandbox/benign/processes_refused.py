"""Would like several processes, and goes on with one."""

import concurrent.futures
import multiprocessing

EXPECTED = {"squares": [0, 1, 4], "cores": True}


def _square(n):
    return n * n


def run(params):
    try:
        with concurrent.futures.ProcessPoolExecutor(2) as pool:
            squares = list(pool.map(_square, range(3)))
    except (OSError, ImportError, NotImplementedError):
        squares = [_square(n) for n in range(3)]
    return {"squares": squares, "cores": multiprocessing.cpu_count() > 0}
