"""Making many small frozen objects quickly.

A frozen dataclass sets each field through `object.__setattr__`, which for an event takes longer than delivering it. Its
twin here has the same fields and the same layout but is not frozen, so its fields are set directly; what is made then
becomes an instance of the frozen class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields, make_dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def maker(cls: type[T]) -> Callable[..., T]:
    """What makes instances of a frozen dataclass with slots; takes the arguments of the class."""
    same = [(one.name, Any, field(default=one.default, default_factory=one.default_factory)) for one in fields(cls)]  # type: ignore[arg-type]

    def become(self: Any) -> None:
        self.__class__ = cls

    twin: Any = make_dataclass(f"_{cls.__name__}", same, slots=True, namespace={"__post_init__": become})
    made: Callable[..., T] = twin
    return made
