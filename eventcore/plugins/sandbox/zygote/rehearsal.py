"""What every worker does first, done ahead: in the zygote for all of them, and again in a worker that has the time.

In the zygote caches are filled, and bytecode adapts itself to what it works on. In a worker the pages are copied that
it writes on, and those copies are most of what its start costs.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

from eventcore.plugins.sandbox.frames import pack
from eventcore.plugins.sandbox.worker.channel import HostChannel
from eventcore.plugins.sandbox.worker.runtime import Runtime

_SLUG = "rehearsal"
_PLUGIN = "def run(params):\n    return params\n\n\nasync def on_rehearsal(event):\n    return None\n"
#: Bytecode adapts itself after some runs.
_TIMES = 10
#: Of the loop: the call is read, its task runs, its end is heard of.
_TURNS = 3


def rehearse(folder: str) -> None:
    """Load a plugin of our own and call it, over a channel of our own; nothing of it is left but what was learnt.

    Args:
        folder: where the plugin may lie meanwhile. Where that cannot be, workers start a little later.
    """
    place = Path(folder, _SLUG)
    try:
        place.mkdir()
        (place / "handler.py").write_text(_PLUGIN)
        _play(place)
    except Exception:  # noqa: BLE001, S110 - it only saves time
        pass
    finally:
        shutil.rmtree(place, ignore_errors=True)
        for name in [name for name in sys.modules if name.startswith("eventcore._loaded")]:
            del sys.modules[name]
        for path in [path for path in sys.path_importer_cache if path.startswith(str(place))]:
            del sys.path_importer_cache[path]


def _play(place: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(1.0)
    loop = asyncio.new_event_loop()
    written = sys.dont_write_bytecode
    with ours, theirs:
        channel = HostChannel(theirs, loop)
        channel.start(Runtime(channel, loop).handle, lambda: False)
        for number in range(_TIMES):
            for frame in _frames(place, number):
                ours.sendall(pack(json.dumps(frame).encode()))
                for _ in range(_TURNS):
                    loop.call_soon(loop.stop)
                    loop.run_forever()
                ours.recv(65536)
        loop.remove_reader(theirs)
    loop.close()
    sys.dont_write_bytecode = written


def _frames(place: Path, number: int) -> list[dict[str, Any]]:
    load: dict[str, Any] = {"dir": str(place), "module": "handler.py", "class_name": None, "entry_point": "run"}
    load |= {"config": {}, "slug": _SLUG, "hooks": [], "paths": [], "watch": None}
    event: dict[str, Any] = {"function": "on_rehearsal", "event": {"id": "1", "type": "rehearsal", "data": {}}}
    return [
        {"id": 3 * number + 1, "kind": "load", "params": load, "context": {}},
        {"id": 3 * number + 2, "kind": "run", "params": {"params": {}}, "context": {}},
        {"id": 3 * number + 3, "kind": "event", "params": event, "context": {}},
    ]
