"""Logging, to a file as well; warnings; tracebacks."""

import logging
import logging.handlers
import traceback
import warnings

EXPECTED = {"lines": 2, "warned": "old", "trace": True}


def run(params):
    log = logging.getLogger("benign")
    handler = logging.handlers.RotatingFileHandler("log.txt", maxBytes=10_000, backupCount=1)
    log.addHandler(handler)
    log.warning("one")
    log.error("two %s", 2)
    log.removeHandler(handler)
    handler.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        trace = "ZeroDivisionError" in traceback.format_exc()
    with open("log.txt") as file:
        return {"lines": len(file.readlines()), "warned": str(caught[0].message), "trace": trace}
