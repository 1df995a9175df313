"""What plugin code asks of the world outside of its sandbox: requests over HTTP, programs, files handed over."""

from __future__ import annotations

from eventcore.plugins.host_api import Service
from eventcore.plugins.outside.broker import Broker
from eventcore.plugins.outside.files import Files
from eventcore.plugins.outside.programs import Programs


def table(broker: Broker, programs: Programs, files: Files) -> dict[str, Service]:
    """The services `http.request`, `run` and `file`."""
    return {"http.request": broker.request, "run": programs.run, "file": files.hand_over}
