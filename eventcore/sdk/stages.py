"""Decorators that say in which stage of a hook a function stands.

They only mark the function; whoever loads it reads the mark. The function itself is returned unchanged, so it stays
callable in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, overload

from eventcore.sdk.errors import PluginError

Stage: TypeAlias = Literal["gate", "filter", "reply", "observe"]
F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__eventcore_hook__"


@dataclass(frozen=True, slots=True)
class HookMark:
    """What a stage decorator wrote on a function, as `__eventcore_hook__`.

    Attributes:
        stage: `gate` (may deny), `filter` (may replace the payload), `reply` or `observe`.
        priority: higher ones run earlier within their tier and stage; default 0.
        before, after: names of plugins or handlers to run before or after, if they are there.
        recheck: for a gate: ask again after the filters.
        hook: the hook's name, `on_message`; the function's own name unless the decorator named another.
    """

    stage: Stage
    priority: int = 0
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    recheck: bool = False
    hook: str = ""


def mark_of(function: Any) -> HookMark | None:
    """The mark of a stage decorator on `function`, or None."""
    mark = getattr(function, _MARK, None)
    return mark if isinstance(mark, HookMark) else None


def _names(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _marker(
    stage: Stage,
    target: Callable[..., Any] | str | None,
    priority: int,
    before: str | Iterable[str],
    after: str | Iterable[str],
    recheck: bool = False,
) -> Any:
    named = target if isinstance(target, str) else ""
    if named and not named.startswith("on_"):
        raise PluginError(f"@{stage}({named!r}): the name of a hook begins with on_, as in on_message")

    def mark(function: F) -> F:
        hook = named or getattr(function, "__name__", "")
        if not hook.startswith("on_"):
            raise PluginError(
                f"{hook or function!r} is marked @{stage} but does not say for which hook; "
                f'name the function on_<hook>, or write @{stage}("on_message")'
            )
        setattr(function, _MARK, HookMark(stage, priority, _names(before), _names(after), recheck, hook))
        return function

    return mark(target) if callable(target) else mark


@overload
def gate(target: F, /) -> F: ...
@overload
def gate(
    target: str | None = None,
    /,
    *,
    priority: int = 0,
    recheck: bool = False,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
) -> Callable[[F], F]: ...
def gate(
    target: Any = None,
    /,
    *,
    priority: int = 0,
    recheck: bool = False,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
) -> Any:
    """Mark a handler that may refuse the payload: it returns None or `Deny(reason)`.

    Args:
        target: the function (bare `@gate`), or the hook's name where the function is not called `on_<hook>`.
        priority: higher ones run earlier.
        recheck: ask again after the filters, about what they made.
        before, after: names of plugins or handlers to run before or after.

    Raises:
        PluginError: no hook can be read from either name.
    """
    return _marker("gate", target, priority, before, after, recheck)


@overload
def filter(target: F, /) -> F: ...  # noqa: A001 - the stage's name
@overload
def filter(  # noqa: A001
    target: str | None = None,
    /,
    *,
    priority: int = 0,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
) -> Callable[[F], F]: ...
def filter(  # noqa: A001
    target: Any = None,
    /,
    *,
    priority: int = 0,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
) -> Any:
    """Mark a handler that may change the payload: it returns None or `Replace(value)`. Arguments as for `gate`."""
    return _marker("filter", target, priority, before, after)


@overload
def observe(target: F, /) -> F: ...
@overload
def observe(
    target: str | None = None,
    /,
    *,
    priority: int = 0,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
) -> Callable[[F], F]: ...
def observe(
    target: Any = None,
    /,
    *,
    priority: int = 0,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
) -> Any:
    """Mark a handler that only looks; what it returns is ignored. Arguments as for `gate`."""
    return _marker("observe", target, priority, before, after)


@overload
def reply(target: F, /) -> F: ...
@overload
def reply(
    target: str | None = None,
    /,
    *,
    priority: int = 0,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
) -> Callable[[F], F]: ...
def reply(
    target: Any = None,
    /,
    *,
    priority: int = 0,
    before: str | Iterable[str] = (),
    after: str | Iterable[str] = (),
) -> Any:
    """Mark a handler that answers: a JSON value, None or `Stop(value)`. The stage of unmarked `on_<hook>` functions."""
    return _marker("reply", target, priority, before, after)
