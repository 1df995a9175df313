"""Answers the intent `calculate` and the command `/calc`.

The expression is parsed into Python's syntax tree, and only the nodes named here are worked out: nothing is evaluated
as code. Size is bounded before it is computed, since `9**9**9` is a short text.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

MAX_LENGTH = 500
#: Results and intermediate values hold at most this many bits.
MAX_BITS = 4096
#: JSON numbers hold 64 bits; larger whole numbers are returned as text.
_INT64 = 2**63

Number = int | float

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
#: Name -> function, fewest and most arguments.
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (abs, 1, 1),
    "ceil": (math.ceil, 1, 1),
    "floor": (math.floor, 1, 1),
    "log": (math.log, 1, 2),
    "max": (max, 1, 50),
    "min": (min, 1, 50),
    "round": (round, 1, 2),
    "sqrt": (math.sqrt, 1, 1),
}
_CONSTANTS = {"pi": math.pi, "e": math.e}


class Refused(ValueError):
    """The expression is not one that the calculator works out."""


def run(params: dict[str, Any]) -> dict[str, Any]:
    """Work out `params["expression"]`.

    Returns:
        `success`, `expression`, `result` (text if it does not fit 64 bits); or `success: false`, `error`, `message`.
    """
    expression = params.get("expression")
    if not isinstance(expression, str) or not expression.strip():
        return _failure("missing_expression", "give an expression, such as 2*(3+4)")
    if len(expression) > MAX_LENGTH:
        return _failure("too_long", f"an expression has at most {MAX_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _failure("syntax", "this is not an arithmetic expression")
    try:
        result = _value(tree)
    except ZeroDivisionError:
        return _failure("division_by_zero", "there is a division by zero")
    except Refused as why:
        return _failure("refused", str(why))
    except RecursionError:
        return _failure("refused", "the expression is nested too deeply")
    except (ValueError, OverflowError, TypeError):
        return _failure("undefined", "the result is not defined, or too large")
    exact = str(result) if isinstance(result, int) and abs(result) >= _INT64 else result
    return {"success": True, "expression": expression, "result": exact}


def on_command(command: str, args: list[str]) -> dict[str, Any]:
    """`/calc EXPRESSION`."""
    if not args:
        return {"text": "Usage: /calc 2*(3+4)"}
    answer = run({"expression": " ".join(str(arg) for arg in args)})
    return {"text": f"{answer['expression']} = {answer['result']}" if answer["success"] else answer["message"]}


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool()):
            raise Refused("only numbers can be worked out")
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.BinOp(op=ast.Pow()):
            return _power(_value(node.left), _value(node.right))
        case ast.BinOp() if type(node.op) in _BINARY:
            return _bounded(_BINARY[type(node.op)](_value(node.left), _value(node.right)))
        case ast.UnaryOp() if type(node.op) in _UNARY:
            return _UNARY[type(node.op)](_value(node.operand))  # type: ignore[no-any-return]
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            return _call(name, [_value(argument) for argument in node.args])
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
    raise Refused("only numbers, + - * / // % **, parentheses and " + ", ".join(_FUNCTIONS) + " are allowed")


def _call(name: str, arguments: list[Number]) -> Number:
    if name not in _FUNCTIONS:
        raise Refused(f"{name} is not a function here; there are {', '.join(_FUNCTIONS)}")
    function, fewest, most = _FUNCTIONS[name]
    if not fewest <= len(arguments) <= most:
        raise Refused(f"{name} takes {fewest} to {most} numbers" if most > fewest else f"{name} takes {fewest} number")
    if name == "round" and len(arguments) == 2 and abs(arguments[1]) > MAX_BITS:
        raise Refused("round takes at most 4096 places")
    return _bounded(function(*arguments))


def _power(base: Number, exponent: Number) -> Number:
    bits = base.bit_length() if isinstance(base, int) else 64
    if isinstance(base, int) and abs(base) > 1 and abs(exponent) * bits > MAX_BITS:
        raise Refused("the power is too large")
    result = base**exponent
    if isinstance(result, complex):
        raise Refused("the power is not a real number")
    return _bounded(result)


def _bounded(number: Number) -> Number:
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        raise Refused("the number is too large")
    if isinstance(number, float) and not math.isfinite(number):
        raise Refused("the number is too large")
    return number


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"success": False, "error": code, "message": message}
