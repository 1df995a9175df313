"""Generators, context managers, pickles of its own, deep recursion that is caught, garbage."""

import contextlib
import gc
import pickle
import shelve
import sys

EXPECTED = {"squares": [0, 1, 4], "order": ["in", "out"], "pickle": {"a": 1}, "shelf": 2, "deep": True, "gc": True}


def _deep(n):
    return _deep(n + 1)


def run(params):
    order = []

    @contextlib.contextmanager
    def noted():
        order.append("in")
        yield
        order.append("out")

    with noted():
        squares = [n * n for n in range(3)]
    with shelve.open("shelf") as shelf:
        shelf["n"] = 2
        kept = shelf["n"]
    try:
        _deep(0)
        deep = False
    except RecursionError:
        deep = True
    return {
        "squares": squares,
        "order": order,
        "pickle": pickle.loads(pickle.dumps({"a": 1})),
        "shelf": kept,
        "deep": deep and sys.getrecursionlimit() >= 1000,
        "gc": gc.collect() >= 0,
    }
