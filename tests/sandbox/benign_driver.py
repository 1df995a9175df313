"""Runs the benign plugins in one mode and prints what came of each.

benign_driver.py FOLDER full|reduced WORKSPACE
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import anyio

from eventcore.kernel.errors import EventCoreError
from eventcore.plugins.sandbox.confined import Sandbox
from eventcore.plugins.sandbox.process import ProcessWorker
from eventcore.plugins.sandbox.spec import Allowance, WorkerSpec

#: Where we have our packages from: as another user that need not be the interpreter's own place.
PACKAGES = str(Path(anyio.__file__).parents[1])


async def main(folder: Path, level: str, workspace: str) -> None:
    sandbox = Sandbox(namespaces=level == "full")
    try:
        async with anyio.create_task_group() as tasks:
            for file in sorted(folder.glob("[a-z]*.py")):
                class_name = "Counter" if 'CLASS = "Counter"' in file.read_text() else None
                spec = WorkerSpec(
                    file.stem,
                    folder,
                    module=file.name,
                    class_name=class_name,
                    paths=(PACKAGES,),
                    allow=Allowance(write=(workspace,), memory_mb=512),
                )
                worker = await ProcessWorker.start(spec, tasks, launcher=sandbox)
                try:
                    await worker.load()
                    answer = await worker.call("run", {"params": {"workspace": workspace}}, timeout=20)
                    said = answer["result"]
                except EventCoreError as error:
                    said = f"{error}\n{error.trace}"
                await worker.close()
                print(json.dumps({"plugin": file.stem, "said": said}), flush=True)
    finally:
        sandbox.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
