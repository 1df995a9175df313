"""What is told of an exception of a plugin: kind, message and traceback, each cut at a length."""

from __future__ import annotations

import os
import traceback

from eventcore.plugins.sandbox.worker.loader import LoadError
from eventcore.plugins.sandbox.worker.output import printable

#: Characters of a message and of a traceback.
MAX_MESSAGE, MAX_TRACE = 4_000, 16_000
_HERE = os.path.dirname(__file__)


def kind_of(error: BaseException) -> str:
    """The name of the exception's class; of what loading refuses, the word for it."""
    return error.kind if isinstance(error, LoadError) else printable(type(error).__name__)[:128]


def message_of(error: BaseException) -> str:
    try:
        return printable(str(error))[:MAX_MESSAGE]
    except Exception:  # noqa: BLE001 - a plugin's own __str__
        return "(the exception's own text cannot be made)"


def trace_of(error: BaseException) -> str:
    """The traceback from the plugin's first frame on; the end of it, if it is long."""
    place = error.__traceback__
    while place is not None and _is_ours(place.tb_frame.f_code.co_filename):
        place = place.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, place))
    except Exception:  # noqa: BLE001 - as in message_of
        return ""
    return printable(text)[-MAX_TRACE:]


def _is_ours(filename: str) -> bool:
    return filename.startswith((_HERE, "<frozen importlib")) or "/importlib/__init__" in filename
