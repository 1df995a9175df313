"""Dataclasses, enums, named tuples, abstract classes, generics."""

import abc
import copy
import dataclasses
import enum
import functools
import typing

EXPECTED = {"sorted": ["a", "b"], "color": "RED", "cached": 1, "copy": True, "total": 6}


@dataclasses.dataclass(order=True, slots=True)
class Item:
    name: str
    tags: list = dataclasses.field(default_factory=list)


class Color(enum.Enum):
    RED = enum.auto()


class Point(typing.NamedTuple):
    x: int
    y: int


class Base(abc.ABC):
    @abc.abstractmethod
    def total(self): ...


class Sum(Base):
    def total(self):
        return functools.reduce(int.__add__, [1, 2, 3])


def run(params):
    calls = []

    @functools.lru_cache
    def slow(n):
        calls.append(n)
        return n

    slow(1), slow(1)
    item = Item("b", [1])
    return {
        "sorted": [one.name for one in sorted([item, Item("a")])],
        "color": Color(1).name,
        "cached": len(calls),
        "copy": copy.deepcopy(item) == item and Point(1, 2) == (1, 2),
        "total": Sum().total(),
    }
