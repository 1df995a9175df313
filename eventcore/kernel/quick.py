"""Making many small objects quickly.

A frozen dataclass sets each field through `object.__setattr__`, which for an event takes longer than delivering it. Its
twin here has the same fields and the same layout but is not frozen, so its fields are set directly; what is made then
becomes an instance of the frozen class.

A record of twenty lists, of which one or two are ever used, costs twenty objects, and the garbage collector comes the
sooner. `LateList` makes each at the first touch.
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


class LateList:
    """A field of a class without slots: its list is made at the first touch, and kept in `__dict__`."""

    __slots__ = ("_name",)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> list[Any]:
        made: list[Any] = []
        instance.__dict__[self._name] = made
        return made


#: For annotated fields: `rows: list[Row] = late_list()`.
late_list: Callable[[], Any] = LateList


class Lately:
    """What has fields of that kind: equal if what is filled is equal."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lately) or type(other) is not type(self):
            return NotImplemented
        return self._filled() == other._filled()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._filled().items())})"

    def _filled(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if value is not None and value != []}
