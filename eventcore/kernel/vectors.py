"""Likeness of vectors: what memories mean, compared one by one.

Some thousand vectors are compared in a fraction of a second, so no index is kept, and none can be stale.
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections.abc import Iterable
from math import sqrt
from operator import mul

from eventcore.kernel.errors import InvalidInput

#: The most numbers that a vector has.
MAX_LENGTH = 8192


def packed(numbers: Iterable[float]) -> bytes:
    """A vector as it is stored: little-endian 32-bit floats, scaled to the length 1.

    Raises:
        InvalidInput: it is empty, too long, all zero, or not made of finite numbers.
    """
    values = [float(number) for number in numbers]
    size = sqrt(sum(map(mul, values, values)))
    if not 0 < len(values) <= MAX_LENGTH or not 0 < size < float("inf"):
        raise InvalidInput(f"a vector has 1 to {MAX_LENGTH:,} finite numbers that are not all 0")
    return _bytes(array("f", (value / size for value in values)))


def likest(vector: bytes, rows: Iterable[tuple[str, bytes]], limit: int) -> list[tuple[str, float]]:
    """The ids of the rows that are most like the vector, with the cosine, by falling likeness, then in order."""
    wanted = _numbers(vector)
    near = (
        (sum(map(mul, wanted, _numbers(other))), -place, name)
        for place, (name, other) in enumerate(rows)
        if len(other) == len(vector)
    )
    return [(name, likeness) for likeness, _, name in heapq.nlargest(limit, near)]


def _numbers(raw: bytes) -> array[float]:
    numbers = array("f")
    numbers.frombytes(raw)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _bytes(numbers: array[float]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
