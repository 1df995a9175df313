"""A host with one busy worker; prints the pids of all that it started, and waits to be killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio

from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import WorkerSpec


def children(pid: int) -> list[int]:
    """All that came of a process."""
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for child in found for below in children(child)]


async def main(folder: str, level: str) -> None:
    sandbox = Sandbox(namespaces=level == "full")
    async with anyio.create_task_group() as tasks:
        worker = await ProcessWorker.start(WorkerSpec("busy", Path(folder)), tasks, launcher=sandbox)
        await worker.load()
        (zygote,) = sandbox._zygotes.values()
        print(json.dumps([zygote.child.pid, *children(zygote.child.pid)]), flush=True)
        await worker.call("run", {"params": None}, timeout=60)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
