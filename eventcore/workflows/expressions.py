"""Templates in workflow definitions: Jinja2 expressions, immutable-sandboxed, strict, and bounded.

A string that is exactly one `{{ ... }}` yields the value itself; any other template yields a string. Nothing is ever
evaluated twice: user text that looks like a template or a list stays text.

Jinja's sandbox keeps code out but does not bound cost: `7**(7**8)` or `"x" * 10**9` would run for hours or fill
memory. So a template may hold expressions only (no statements), from an allow-list of node kinds, filters and methods;
the text of a template is at most 4 KiB; and operators, filters and tests that can amplify draw on one budget for the
whole evaluation, before they allocate. What is left takes time in proportion to the text and the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import (
    StrictUndefined,
    TemplateSyntaxError,
    Undefined,
    UndefinedError,
    nodes,
)
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from eventcore.kernel.documents import Path
from eventcore.kernel.errors import ExpressionError
from eventcore.kernel.names import did_you_mean
from eventcore.workflows.bounded import (
    BUDGET,
    MAX_APPLIED,
    PASSED,
    bounded,
    check_json,
    check_trimmed,
    contains,
    length_of,
    size_of,
)
from eventcore.workflows.bounded import MAX_SIZE as MAX_SIZE
from eventcore.workflows.filters import FILTERS as OWN_FILTERS

MAX_TEMPLATE = 4096
_MAX_SAID = 500
_MAX_BITS = 4096

_LOOK_UP = re.compile(r"\s*\{\{\s*([a-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*\}\}\s*", re.ASCII)
_SINGLE = re.compile(r"\s*\{\{(?P<body>.*)\}\}\s*", re.DOTALL)

_FILTERS = frozenset({"json", *OWN_FILTERS}) | frozenset(
    """abs capitalize count d default dictsort first float int items join last length list lower map max min reject
    rejectattr replace reverse round select selectattr sort string sum title tojson trim truncate unique upper
    wordcount""".split()
)
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        """upper lower strip lstrip rstrip title capitalize startswith endswith split splitlines isdigit isalpha
        isalnum count find removeprefix removesuffix""".split()
    ),
    dict: frozenset({"keys", "values", "items", "get"}),
    list: frozenset({"count", "index"}),
}
_ALL_METHODS = frozenset().union(*_METHODS.values())
_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const),
    *(nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test),
    *(nodes.Call, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Compare, nodes.Operand),
    *(nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow),
    *(nodes.Not, nodes.Neg, nodes.Pos, nodes.And, nodes.Or),
)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with bounded operators, few methods, and keys before attributes."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=_Missing, autoescape=False, cache_size=0)
        self.globals.clear()
        self.filters = {name: call for name, call in self.filters.items() if name in _FILTERS} | bounded() | OWN_FILTERS
        self.tests["in"] = contains
        self.budget, self.applied = BUDGET, 0

    def apply(self) -> None:
        """A filter or test is applied to an item; raises SecurityError when that was done too often."""
        self.applied += 1
        if self.applied > MAX_APPLIED:
            raise SecurityError(f"it would apply filters to single items more than {MAX_APPLIED:,} times")

    def charge(self, amount: int) -> None:
        """Draw on the evaluation's budget; raises SecurityError when it is used up."""
        self.budget -= amount
        if self.budget < 0:
            raise SecurityError(f"it would make or look through more than {BUDGET:,} characters and list items")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if getattr(obj, "__name__", "") in ("strip", "lstrip", "rstrip"):
            check_trimmed(*args)
        self.charge(length_of(getattr(obj, "__self__", None)) // PASSED)
        return super().call(context, obj, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

    def getattr(self, obj: Any, attribute: str) -> Any:
        # `event.data.items` means the key `items`, not the method of a Python dict.
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            self.charge(size_of(left) + size_of(right))
        elif operator == "*":
            self._charge_multiply(left, right)
        elif operator == "**":
            _check_power(left, right)
        elif isinstance(left, str):
            raise SecurityError("% on text is not available; put the parts side by side instead")
        return super().call_binop(context, operator, left, right)

    def _charge_multiply(self, left: Any, right: Any) -> None:
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int):
                self.charge(size_of(one) * max(0, other))
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _MAX_BITS:
            raise SecurityError(f"the result would have more than {_MAX_BITS} bits")


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MAX_BITS:
        raise SecurityError(f"the result would have more than {_MAX_BITS} bits")


class _Missing(StrictUndefined):
    """What is not there; says what is, where that helps."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        there, name = self._undefined_obj, self._undefined_name
        if type(there) is not dict or not isinstance(name, str):
            return super()._undefined_message
        names = sorted(str(one) for one in there)
        near = did_you_mean(name, names) or (f"; there is {', '.join(names[:8])}" if names else "; it is empty")
        return f"there is no {name!r}{near}{', ...' if len(names) > 8 and 'mean' not in near else ''}"


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled string of a definition. Call it with the names it may use."""

    source: str
    single: bool
    #: (name, attribute or "") pairs that it reads, such as ("steps", "classify").
    reads: frozenset[tuple[str, str]]
    _evaluate: Callable[[Mapping[str, Any]], Any]
    #: The names of a plain look-up, `steps.classify.output`; empty for anything else.
    _path: tuple[str, ...] = ()

    def __call__(self, scope: Mapping[str, Any]) -> Any:
        """The value (if the template is exactly one expression) or the text.

        Raises:
            ExpressionError: a name is missing, an operation is refused, or the result is too large.
        """
        # Most templates only fetch a value. Walking there costs 0.5 us, asking Jinja 8. What is not there, Jinja tells.
        value: Any = scope
        for name in self._path:
            if type(value) is not dict or name not in value:
                break
            value = value[name]
        else:
            if self._path:
                return value
        try:
            value = self._evaluate(scope)
            if isinstance(value, Undefined):
                str(value)  # StrictUndefined raises its own message
            check_json(value)
        except UndefinedError as error:
            raise ExpressionError(f"{self.source!r}: {(error.message or '')[:_MAX_SAID]}") from None
        except Exception as error:  # noqa: BLE001 - filters meet values of any kind, and raise whatever that leads to
            raise ExpressionError(f"{self.source!r}: {(str(error) or type(error).__name__)[:_MAX_SAID]}") from None
        return value


class Expressions:
    """Compiles templates; one an engine."""

    def __init__(self) -> None:
        self._environment = _Environment()

    def compile(self, source: str, known: frozenset[str] | None = None) -> Template:
        """Compile one string.

        Args:
            source: at most 4 KiB.
            known: names that the template may use; None does not check.

        Raises:
            ExpressionError: it does not parse, uses something that is not available, or names an unknown variable.
        """
        if len(source) > MAX_TEMPLATE:
            raise ExpressionError(f"the template is longer than {MAX_TEMPLATE:,} characters")
        try:
            return self._compile(source, known)
        except TemplateSyntaxError as error:
            raise ExpressionError(f"{source!r}: {error.message}") from None
        except ExpressionError:
            raise
        except Exception as error:  # noqa: BLE001 - too deeply nested for the parser, for Jinja or for Python
            raise ExpressionError(
                f"{source!r:.200}: cannot be compiled: {str(error) or type(error).__name__}"
            ) from None

    def _compile(self, source: str, known: frozenset[str] | None) -> Template:
        tree = self._environment.parse(source)
        _check(tree, source)
        reads = _reads(tree)
        if known is not None and (strange := sorted({name for name, _ in reads} - known)):
            raise ExpressionError(
                f"{source!r}: {strange[0]!r} is not available here{did_you_mean(strange[0], known)}",
                hint=f"available: {', '.join(sorted(known))}",
            )
        single = _SINGLE.fullmatch(source)
        # Two expressions side by side also match the outer braces; the parsed tree tells them apart.
        if single and len(tree.body) == 1 and len(_parts(tree)) == 1:
            expression = self._environment.compile_expression(single["body"].strip(), undefined_to_none=False)
            path = _LOOK_UP.fullmatch(source)
            names = tuple(path[1].split(".")) if path and any(path[1].startswith(name) for name, _ in reads) else ()
            return Template(source, True, reads, self._on_budget(expression), names)
        return Template(source, False, reads, self._on_budget(self._environment.from_string(source).render))

    def _on_budget(self, evaluate: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
        def call(scope: Mapping[str, Any]) -> Any:
            self._environment.budget, self._environment.applied = (
                BUDGET,
                0,
            )  # nothing waits during an evaluation, so one budget serves all
            return evaluate(scope)

        return call

    def value(
        self, source: Any, known: frozenset[str] | None = None, found: list[Template] | None = None
    ) -> Callable[[Mapping[str, Any]], Any]:
        """Compile any JSON value: every string in it that holds `{{` is a template, the rest stays as it is.

        The templates are added to `found`, if it is given.
        """
        if isinstance(source, str):
            if "{{" not in source and "{%" not in source:
                return lambda scope: source
            template = self.compile(source, known)
            if found is not None:
                found.append(template)
            return template
        if isinstance(source, dict):
            parts = {key: self.value(item, known, found) for key, item in source.items()}
            return lambda scope: {key: part(scope) for key, part in parts.items()}
        if isinstance(source, list):
            items = [self.value(item, known, found) for item in source]
            return lambda scope: [item(scope) for item in items]
        return lambda scope: source


def leaves(source: Any, at: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every text in a JSON value, with its path."""
    if isinstance(source, str):
        yield at, source
    elif isinstance(source, dict | list):
        for key, value in source.items() if isinstance(source, dict) else enumerate(source):
            yield from leaves(value, (*at, key))


def _parts(tree: nodes.Template) -> list[nodes.Node]:
    output = tree.body[0]
    return list(output.nodes) if isinstance(output, nodes.Output) else []


def _reads(tree: nodes.Template) -> frozenset[tuple[str, str]]:
    found = {(node.node.name, node.attr) for node in tree.find_all(nodes.Getattr) if isinstance(node.node, nodes.Name)}
    seen = {name for name, _ in found}
    return frozenset(found | {(node.name, "") for node in tree.find_all(nodes.Name) if node.name not in seen})


def _check(tree: nodes.Template, source: str) -> None:
    """Raises ExpressionError on anything outside the allow-lists."""
    for node in tree.find_all(nodes.Node):
        if not isinstance(node, _NODES):
            what = "`~`; use +" if isinstance(node, nodes.Concat) else f"a {type(node).__name__} statement"
            raise ExpressionError(f"{source!r}: only expressions are available in workflows, not {what}")
        if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
            raise ExpressionError(f"{source!r}: there is no filter {node.name!r}{did_you_mean(node.name, _FILTERS)}")
        if isinstance(node, nodes.Call):
            _check_call(node, source)


def _check_call(node: nodes.Call, source: str) -> None:
    # By name, before anything runs: Jinja wraps `str.format` for itself, whatever `is_safe_attribute` says of it.
    if not isinstance(node.node, nodes.Getattr):
        raise ExpressionError(f"{source!r}: only methods of a value can be called, such as inputs.text.upper()")
    if node.node.attr not in _ALL_METHODS:
        raise ExpressionError(
            f"{source!r}: the method {node.node.attr!r} is not available{did_you_mean(node.node.attr, _ALL_METHODS)}"
        )
