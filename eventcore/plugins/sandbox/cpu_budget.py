"""A limit on the CPU seconds of one call (`KARI_CPU_LIMIT`).

A process can be given a limit for its whole life (RLIMIT_CPU), but a warm worker lives for many calls. So its CPU
clock is read when a call begins and looked at again when the call could have used up its budget at the earliest.
Calls that run in one worker at the same time are charged together: the clock does not tell them apart.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import Any

import anyio

from eventcore.kernel.errors import EventCoreError, Interrupted, PluginTimeout
from eventcore.kernel.ports import Clock
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.throttle import used_by

#: The shortest time between two looks. Seconds.
_SHORTEST = 0.02


async def within(
    seconds: float, worker: ProcessWorker, call: Awaitable[dict[str, Any]], clock: Clock
) -> dict[str, Any]:
    """The answer of a call that may use so many CPU seconds; a worker that uses more is killed.

    Raises:
        PluginTimeout: of the kind `CpuLimit`: it used more.
        PluginFailed: as the call.
    """
    over = False
    error: EventCoreError | None = None

    async def watch() -> None:
        nonlocal over
        began = used_by(worker.pid)
        cores = os.cpu_count() or 1
        while began is not None and (now := used_by(worker.pid)) is not None:
            left = seconds - (now - began)
            if left <= 0:
                over = True
                await worker.kill("it used more CPU time than a call may")
                return
            await clock.sleep(max(_SHORTEST, left / cores))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            answer = await call
        except EventCoreError as failed:
            answer, error = {}, failed
        tasks.cancel_scope.cancel()
    if over and isinstance(error, Interrupted):
        text = f"{worker.spec.slug} used more than {seconds:g} s of CPU time"
        raise PluginTimeout(text, kind="CpuLimit", limit="cpu") from error
    if error is not None:
        raise error
    return answer
