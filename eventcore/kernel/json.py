"""Strict JSON, one way in and one way out.

orjson does the work (about ten times the standard library's speed). It is strict where we want it (string keys, valid
UTF-8, 64-bit integers, bounded depth) but for one thing: it writes NaN and the infinities as null. A payload that
silently changes is worse than one refused, so a document that holds a null is looked through for them.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, TypeAlias

import orjson

from eventcore.kernel.errors import InvalidPayload

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

_MAX_DEPTH = 200
_HOLDERS = frozenset({dict, list, tuple})
_LOOKED_INTO = _HOLDERS | {float}
_STRICT = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode(value: Any, *, limit: int | None = None, what: str = "data") -> bytes:
    """`value` as compact JSON.

    Args:
        value: anything made of dict (string keys), list, tuple, str, int (64 bit), finite float, bool and None.
        limit: the most bytes allowed, or None.
        what: how the error message calls the value.

    Raises:
        InvalidPayload: it is not JSON, or larger than `limit`.
    """
    try:
        raw = orjson.dumps(value, None, _STRICT)
    except (TypeError, RecursionError) as error:
        raise InvalidPayload(f"{what} is not JSON: {_why(value, error)}") from None
    if b"null" in raw and not _all_finite(value):
        _refuse_non_finite(value, what, 0)
    if limit is not None and len(raw) > limit:
        raise InvalidPayload(
            f"{what} is {len(raw):,} bytes as JSON; the limit is {limit:,}",
            hint="send a reference to the data instead of the data",
        )
    return raw


def encode_plainly(value: Any, limit: int) -> bytes | None:
    """`value` as compact JSON, if that is plain to see; None: ask `encode`, which looks closer or says why not."""
    try:
        raw = orjson.dumps(value, None, _STRICT)
    except (TypeError, RecursionError):
        return None
    return None if len(raw) > limit or (b"null" in raw and value is not None) else raw


def encode_sorted(value: Any) -> bytes:
    """`value` as JSON with sorted keys: equal values have equal bytes."""
    encode(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def decode(raw: bytes | str, *, what: str = "data") -> Any:
    """The value of a JSON text. NaN, infinities, trailing text and invalid UTF-8 are refused.

    Raises:
        InvalidPayload: it is not JSON.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidPayload(f"{what} is not JSON: {error}") from None


def text_digest(text: str) -> str:
    """SHA-256 (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the sorted JSON of `value`."""
    return hashlib.sha256(encode_sorted(value)).hexdigest()


def _why(value: Any, error: Exception) -> str:
    place = _find_bad(value, "", 0)
    return place or str(error)


def _find_bad(value: Any, path: str, depth: int) -> str | None:
    """Where in `value` the first thing stands that JSON cannot hold; None if it was not found."""
    at = path or "the value itself"
    if depth > _MAX_DEPTH:
        return f"nested deeper than {_MAX_DEPTH} levels"
    match value:
        case None | bool() | float():
            return None
        case int():
            return None if -(2**63) <= value < 2**64 else f"{at} does not fit 64 bits"
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return f"{at} holds a lone surrogate, which is not text"
            return None
        case dict():
            return _find_bad_in_dict(value, path, depth)
        case list() | tuple():
            return next(filter(None, (_find_bad(v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value))), None)
        case _:
            return f"{at} is a {type(value).__name__}"


def _find_bad_in_dict(value: dict[Any, Any], path: str, depth: int) -> str | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return f"{path or 'the value itself'} has the key {key!r}, and keys must be text"
        if bad := _find_bad(item, f"{path}.{key}" if path else key, depth + 1):
            return bad
    return None


def _all_finite(value: Any) -> bool:
    """Whether no float in it is NaN or infinite: quickly, since every event with a null is asked."""
    rest = [value]
    for one in rest:  # which grows meanwhile
        kind = type(one)
        if kind is float:
            if not math.isfinite(one):
                return False
        elif kind in _HOLDERS:
            for item in one.values() if kind is dict else one:
                if type(item) in _LOOKED_INTO:
                    rest.append(item)  # noqa: PERF401 - a generator costs more than the work
    return True


def _refuse_non_finite(value: Any, path: str, depth: int) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidPayload(f"{path} is {value}, which JSON cannot hold", hint="send null or a string instead")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{path}[{index}]", depth + 1)
