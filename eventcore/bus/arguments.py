"""Arguments of the bus's face: what is of a wrong type is refused where it is given, not later in somebody's emit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from eventcore.bus.acks import Durable
from eventcore.kernel.errors import InvalidInput


def number(what: str, value: Any) -> None:
    """Raises InvalidInput unless `value` is a number."""
    if not isinstance(value, int | float) or math.isnan(value):
        raise InvalidInput(f"{what} is a number, not {value!r:.60}")


def seconds(what: str, value: Any) -> None:
    """Raises InvalidInput unless `value` is a number above 0."""
    number(what, value)
    if value <= 0:
        raise InvalidInput(f"{what} is above 0, in seconds, not {value!r:.60}")


def whole(what: str, value: Any, least: int | None = None) -> None:
    """Raises InvalidInput unless `value` is an int of at least `least`."""
    if not isinstance(value, int) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise InvalidInput(f"{what} is a whole number{bound}, not {value!r:.60}")


def text(what: str, value: Any, *, needed: bool = False) -> None:
    """Raises InvalidInput unless `value` is text that can be stored, or None where it is not needed."""
    if value is None and not needed:
        return
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is text, not {value!r:.60}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} holds a lone surrogate, which is not text") from None


def mapping(what: str, value: Any) -> None:
    """Raises InvalidInput unless `value` is a mapping, or None."""
    if value is not None and not isinstance(value, Mapping):
        raise InvalidInput(f"{what} is a mapping, not {value!r:.60}")


def entries(what: str, value: Any, most: int) -> None:
    """Raises InvalidInput unless `value` is a sequence of at most so many."""
    if not isinstance(value, Sequence):
        raise InvalidInput(f"{what} takes a list of events, not {value!r:.60}")
    if len(value) > most:
        raise InvalidInput(f"{what} takes at most {most:,} events, not {len(value):,}")


def one_of(what: str, value: Any, words: Sequence[str]) -> None:
    """Raises InvalidInput unless `value` is one of these words."""
    if value not in words:
        raise InvalidInput(f"{what} {value!r:.60} is none of {', '.join(words)}")


def check_subscription(handler: Any, durable: Any, words: Mapping[str, Any]) -> None:
    """Raises InvalidInput if a subscription cannot be made of these; `words`: its name and whose it is."""
    if not callable(handler):
        raise InvalidInput(f"a handler is a function of the event, not {handler!r:.60}")
    for what, word in words.items():
        text(what, word)
    if durable is not None and not isinstance(durable, Durable):
        raise InvalidInput(f"durable is a Durable(...), not {durable!r:.60}")
    if durable is not None and not words.get("name"):
        raise InvalidInput("a durable subscription needs a name", hint="its place in the store is found again by that")


def check_numbers(priority: Any, concurrency: Any, buffer: Any, timeout: Any) -> None:
    """Raises InvalidInput if a subscription cannot have these."""
    whole("priority", priority)
    whole("concurrency", concurrency, 1)
    whole("buffer", buffer, 1)
    seconds("timeout", timeout)
