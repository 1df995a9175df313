"""Answers that are made into something else on their way to plugin code."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from eventcore.sdk.binding import Answer, Pending

T = TypeVar("T")
U = TypeVar("U")


class _Mapped(Generic[T, U]):
    """A pending answer, of which `make` makes another one."""

    def __init__(self, pending: Pending[T], make: Callable[[T], U]) -> None:
        self._pending, self._make = pending, make

    def done(self) -> bool:
        return self._pending.done()

    def result(self) -> U:
        return self._make(self._pending.result())

    def __await__(self) -> Generator[Any, None, U]:
        return self._make((yield from self._pending.__await__()))


def mapped(answer: Answer[T], make: Callable[[T], U]) -> Answer[U]:
    """The answer with `make` applied to its result, once it is there."""
    pending = answer._pending
    return Answer(make(answer.value)) if pending is None else Answer(pending=_Mapped(pending, make))
