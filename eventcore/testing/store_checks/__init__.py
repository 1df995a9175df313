"""The conformance checks of the port `Store`, as plain async functions: no pytest is needed to run them.

Each takes `make_store`, which returns a new store that has not been started, and raises AssertionError where the store
breaks its contract::

    for check in ALL_CHECKS:
        await check(make_store)

They run under asyncio and trio, with stores that can.
"""

from __future__ import annotations

from eventcore.testing.store_checks import commits, cursors, guards, memories, queries, runs, upkeep
from eventcore.testing.store_checks.records import Check, MakeStore

__all__ = ["ALL_CHECKS", "Check", "MakeStore"]

ALL_CHECKS: tuple[Check, ...] = tuple(
    check
    for module in (commits, cursors, guards, runs, memories, queries, upkeep)
    for name, check in vars(module).items()
    if name.startswith("check_")
)
