"""What plugin code asks of the world outside of its sandbox: requests over HTTP, programs, files handed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eventcore.plugins.host_api import CallApi, Service
from eventcore.plugins.outside.files import Files
from eventcore.plugins.outside.programs import Programs

if TYPE_CHECKING:
    from eventcore.plugins.outside.broker import Broker


def table(broker: Callable[[], Broker], programs: Programs, files: Files) -> dict[str, Service]:
    """The services `http.request`, `run` and `file`.

    Args:
        broker: makes the broker at the first request.
    """

    async def request(call: CallApi, params: dict[str, Any]) -> Any:
        return await broker().request(call, params)

    return {"http.request": request, "run": programs.run, "file": files.hand_over}
