"""Runs one plugin in the process tier and prints what came of each expression it was asked to evaluate, as JSON.

    python tier_driver.py FOLDER full|reduced EXPRESSIONS_AS_JSON [ALLOWANCE_AS_JSON [spare]]

A process of its own, so that a test can run it as another user, or with parts of the kernel taken away.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from eventcore.kernel.errors import EventCoreError
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import Allowance, WorkerSpec

#: What the kernel says of a process's confinement.
STATUS = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp")


async def one_to_spare(sandbox: Sandbox, start: Callable[[], Awaitable[ProcessWorker]]) -> list[int]:
    """Wait until a worker is forked ahead, which is when one has been asked for. Returns the pids of that crew."""
    first = await start()
    (zygote,) = sandbox._zygotes.values()
    with anyio.fail_after(60):
        while len(found := waiting(zygote.child.pid)) < 2:
            await anyio.sleep(0.005)
    await first.kill()
    return found


def waiting(pid: int) -> list[int]:
    """The crew that waits, of all that came of a process: asleep in its wait for orders."""
    below = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    mine = [one for one in below if Path(f"/proc/{one}/comm").read_text().strip() == "spare" and state(one) == "S"]
    return mine + [found for one in below for found in waiting(one)]


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def status_of(pid: int) -> list[str]:
    """The lines about its confinement, and its number in its namespace where it has one of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    numbers = next(line.split()[1:] for line in lines if line.startswith("NSpid"))
    return [line for line in lines if line.startswith(STATUS)] + numbers[1:][-1:]


async def main(folder: str, level: str, expressions: dict[str, str], allow: dict[str, Any], spare: bool) -> None:
    sandbox = Sandbox(namespaces=level == "full")
    given = Allowance(**{name: tuple(value) if isinstance(value, list) else value for name, value in allow.items()})
    said: dict[str, Any] = {}
    try:
        async with anyio.create_task_group() as tasks:

            async def start() -> ProcessWorker:
                return await ProcessWorker.start(
                    WorkerSpec("tried", Path(folder), allow=given), tasks, launcher=sandbox
                )

            try:
                crew = await one_to_spare(sandbox, start) if spare else []
                worker = await start()
                said["ahead"], said["status"] = worker.pid in crew, status_of(worker.pid)
                said["level"] = (await sandbox.machine()).level
                await worker.load()
            except EventCoreError as error:
                print(json.dumps({"refused": error.as_dict(), "level": said.get("level")}))
                tasks.cancel_scope.cancel()  # a worker that could not load its plugin is there all the same
                return
            for name, expression in expressions.items():
                try:
                    said[name] = (await worker.call("run", {"params": expression}, timeout=60))["result"]
                except EventCoreError as error:
                    said[name] = f"{getattr(error, 'kind', '')}: {error}"
            await worker.close()
    finally:
        sandbox.close()
    print(json.dumps(said))


if __name__ == "__main__":
    anyio.run(
        main,
        sys.argv[1],
        sys.argv[2],
        json.loads(sys.argv[3]),
        json.loads((sys.argv[4:] or ["{}"])[0]),
        "spare" in sys.argv[5:],
    )
