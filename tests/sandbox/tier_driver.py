"""Runs one plugin in the process tier and prints what came of each expression it was asked to evaluate, as JSON.

    python tier_driver.py FOLDER full|reduced EXPRESSIONS_AS_JSON [ALLOWANCE_AS_JSON]

A process of its own, so that a test can run it as another user, or with parts of the kernel taken away.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio

from eventcore.kernel.errors import EventCoreError
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import Allowance, WorkerSpec


async def main(folder: str, level: str, expressions: dict[str, str], allow: dict[str, Any]) -> None:
    sandbox = Sandbox(namespaces=level == "full")
    given = Allowance(**{name: tuple(value) if isinstance(value, list) else value for name, value in allow.items()})
    said: dict[str, Any] = {}
    try:
        async with anyio.create_task_group() as tasks:
            try:
                worker = await ProcessWorker.start(
                    WorkerSpec("tried", Path(folder), allow=given), tasks, launcher=sandbox
                )
                said["level"] = (await sandbox.machine()).level
                await worker.load()
            except EventCoreError as error:
                print(json.dumps({"refused": error.as_dict(), "level": said.get("level")}))
                tasks.cancel_scope.cancel()  # a worker that could not load its plugin is there all the same
                return
            for name, expression in expressions.items():
                try:
                    said[name] = (await worker.call("run", {"params": expression}, timeout=10))["result"]
                except EventCoreError as error:
                    said[name] = f"{getattr(error, 'kind', '')}: {error}"
            await worker.close()
    finally:
        sandbox.close()
    print(json.dumps(said))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads((sys.argv[4:] or ["{}"])[0]))
