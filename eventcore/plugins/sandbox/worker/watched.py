"""A `run` under the debugger: what it returns or raises, with the tracer's report."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from eventcore.plugins.sandbox.frames import MAX_FRAME, NotJSON, encode
from eventcore.plugins.sandbox.worker.failures import MAX_TRACE, kind_of, message_of
from eventcore.plugins.sandbox.worker.loader import LoadError, Plugin
from eventcore.plugins.sandbox.worker.output import printable
from eventcore.plugins.sandbox.worker.tracing import BreakpointError, Tracer

#: The largest result that is shown, in bytes of JSON: the report goes beside it in one frame.
MAX_RESULT = MAX_FRAME // 4


def debug(plugin: Plugin, wanted: Mapping[str, Any], run_plain: Callable[[Any, list[Any]], Any]) -> Any:
    """The report of a call, or for an async handler its awaitable.

    Args:
        wanted: `params` of the call, `breakpoints`, and `trace`.
        run_plain: calls a plain function with its arguments.

    Raises:
        LoadError: a breakpoint names no line, or there is nothing to call.
    """
    try:
        tracer = Tracer(plugin.folder, wanted["breakpoints"], lines=wanted["trace"])
    except BreakpointError as error:
        raise LoadError("NoSuchBreakpoint", str(error)) from None
    found = plugin.handler("run", wanted)
    assert found is not None
    handler, args = found
    report = {"prompt": args[0].get("prompt") if plugin.prompt is not None else None, "result": None, "error": None}
    if not handler.blocking:
        return _later(tracer, handler(args), report)
    try:
        with tracer:
            report["result"] = _sendable(run_plain(handler, args))
    except BaseException as error:  # noqa: BLE001 - SystemExit in a handler must not end the worker
        report["error"] = _described(error, tracer.root)
    return report | tracer.report()


async def _later(tracer: Tracer, pending: Awaitable[Any], report: dict[str, Any]) -> dict[str, Any]:
    try:
        with tracer:
            report["result"] = _sendable(await pending)
    except BaseException as error:  # noqa: BLE001 - as above
        report["error"] = _described(error, tracer.root)
    return report | tracer.report()


def _sendable(result: Any) -> Any:
    try:
        size = len(encode(result))
    except NotJSON as error:
        raise LoadError("ResultNotJSON", f"the result is not JSON: {error}") from None
    return result if size <= MAX_RESULT else f"({size:,} bytes, too large to show)"


def _described(error: BaseException, root: str) -> dict[str, Any]:
    """Kind, message and traceback, the latter from the plugin's first frame on."""
    place = error.__traceback__
    while place is not None and not place.tb_frame.f_code.co_filename.startswith(root):
        place = place.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, place)) if place is not None else ""
    except Exception:  # noqa: BLE001 - a plugin's own __str__
        text = ""
    return {"kind": kind_of(error), "message": message_of(error), "trace": printable(text)[-MAX_TRACE:]}
