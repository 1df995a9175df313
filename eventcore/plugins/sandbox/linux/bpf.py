"""Assembles seccomp filters: classic BPF, as the kernel checks and runs it. Pure.

A filter sees `struct seccomp_data`: the call's number at offset 0, the architecture at 4, the arguments, eight bytes
each, from 16 on. Loads are 32 bits wide, so an argument is looked at in two halves.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

KILL_PROCESS, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000

_LOAD, _JEQ, _JGE, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER, _ARCH, _ARGS = 0, 4, 16
_X32 = 0x40000000
#: The farthest a conditional jump reaches.
_FAR = 255


@dataclass(frozen=True, slots=True)
class Masked:
    """Holds if `argument & mask == value`; all are 64 bits.

    Attributes:
        argument: which, 0 to 5.
    """

    argument: int
    value: int
    mask: int = 0xFFFFFFFF


#: All conditions of one row must hold; any one row suffices. No rows: always.
Rows = Sequence[Sequence[Masked]]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is returned for one call: `action` if `rows` hold, else `otherwise`."""

    number: int
    action: int
    rows: Rows = ()
    otherwise: int = ERRNO | 1


def errno(number: int) -> int:
    """The action that makes a call fail."""
    return ERRNO | number


def _op(code: int, k: int, true: int = 0, false: int = 0) -> tuple[int, int, int, int]:
    return code, true, false, k


def _condition(one: Masked) -> list[tuple[int, int, int, int]]:
    """Falls through if it holds; a jump of `_FAR` marks where to go if not."""
    code = []
    for half in (0, 1):
        shift = 32 * half
        mask, value = (one.mask >> shift) & 0xFFFFFFFF, (one.value >> shift) & 0xFFFFFFFF
        if not mask:
            continue
        code.append(_op(_LOAD, _ARGS + 8 * one.argument + 4 * half))
        if mask != 0xFFFFFFFF:
            code.append(_op(_AND, mask))
        code.append(_op(_JEQ, value, 0, _FAR))
    return code


def _row(conditions: Iterable[Masked], action: int) -> list[tuple[int, int, int, int]]:
    body = [step for one in conditions for step in _condition(one)]
    size = len(body)
    # A condition that fails leaves the row: over what is left of it and over its return.
    body = [
        (code, true, size - index if code == _JEQ else false, k) for index, (code, true, false, k) in enumerate(body)
    ]
    return [*body, _op(_RETURN, action)]


def _rule(rule: Rule) -> list[tuple[int, int, int, int]]:
    if not rule.rows:
        return [_op(_JEQ, rule.number, 0, 1), _op(_RETURN, rule.action)]
    body = [step for row in rule.rows for step in _row(row, rule.action)]
    body.append(_op(_RETURN, rule.otherwise))
    if len(body) > _FAR:
        raise ValueError(f"the rule of call {rule.number} is too long")
    return [_op(_JEQ, rule.number, 0, len(body)), *body]


def assemble(audit: int, rules: Sequence[Rule], *, x32: bool, known: int, unknown: int, default: int) -> bytes:
    """The filter.

    Args:
        audit: the architecture that it is for; a call of any other kills the process.
        rules: what to do for which call. Looked at in this order, so put the frequent ones first.
        x32: kill for numbers of x86's second table.
        known: numbers from this one on get `unknown`, calls that were invented after the list was made.
        default: for calls without a rule.
    """
    code = [_op(_LOAD, _ARCH), _op(_JEQ, audit, 1, 0), _op(_RETURN, KILL_PROCESS), _op(_LOAD, _NUMBER)]
    if x32:
        code += [_op(_JGE, _X32, 0, 1), _op(_RETURN, KILL_PROCESS)]
    plain = [rule for rule in rules if not rule.rows and rule.action == ALLOW]
    code += _allowed([rule.number for rule in plain])
    for rule in rules:
        if rule.rows or rule.action != ALLOW:
            code += _rule(rule)
    code += [_op(_JGE, known, 0, 1), _op(_RETURN, unknown), _op(_RETURN, default)]
    return b"".join(struct.pack("<HBBI", *step) for step in code)


def _allowed(numbers: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """A chain of comparisons with one return for each block, at most as far away as a jump reaches."""
    code = []
    for start in range(0, len(numbers), 200):
        block = numbers[start : start + 200]
        size = len(block)
        code += [_op(_JEQ, number, size - index, 0) for index, number in enumerate(block)]
        # Behind the chain: over the return, which only a match reaches.
        code += [_op(0x05, 1), _op(_RETURN, ALLOW)]
    return code
