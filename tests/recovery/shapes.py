"""Sixteen shapes of workflows for the crash tests: what each does, and how each of its runs must end.

Steps call `mark`, whose effect the driver counts outside the engine. It returns `n + 1`; it raises if told to `boom`,
and on its first attempts if told that it is `shaky`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_N = "{{ inputs.n }}"
_UNDO = {"plugin": "mark", "with": {"n": "{{ output.n }}"}, "retry": {"attempts": 9, "initial": "1ms"}}


def _last(step: str) -> str:
    return f"{{{{ steps.{step}.output.n }}}}"


def _mark(id: str, n: Any = _N, **more: Any) -> dict[str, Any]:
    given = {"n": n, **{key: more.pop(key) for key in ("boom", "shaky") if key in more}}
    return {"id": id, "plugin": "mark", "with": given, **more}


def _after(id: str, step: str, **more: Any) -> dict[str, Any]:
    return _mark(id, _last(step), **more)


@dataclass(frozen=True)
class Shape:
    """One kind of run.

    Attributes:
        steps: of the definition.
        output: what the run `n` comes to; None for one that does not complete.
        status: how each of its runs ends.
        head: other keys of the definition.
        undone: which steps are undone, in this order.
        helped_by: what the driver does about its runs besides starting them.
    """

    steps: list[dict[str, Any]]
    output: Callable[[int], Any] | None
    outputs: Any = None
    status: str = "completed"
    head: dict[str, Any] | None = None
    undone: tuple[str, ...] = ()
    helped_by: str = ""

    def definition(self, slug: str) -> dict[str, Any]:
        return {"slug": slug, **(self.head or {}), "steps": self.steps, "outputs": self.outputs}


SHAPES: dict[str, Shape] = {
    "parallel": Shape(
        [
            _mark("a"),
            *(_after(name, "a", needs=["a"]) for name in ("b", "c", "d")),
            _mark("e", "{{ steps.b.output.n + steps.c.output.n + steps.d.output.n }}", needs=["b", "c", "d"]),
        ],
        lambda n: 3 * (n + 2) + 1,
        _last("e"),
    ),
    "each": Shape(
        [_mark("all", "{{ item + inputs.n }}", foreach=[*range(8)], max_parallel=3), _mark("end")],
        lambda n: [n + i + 1 for i in range(8)],
        "{{ steps.all.output | map(attribute='n') | list }}",
    ),
    "nested": Shape(
        [
            {
                "id": "outer",
                "foreach": [1, 2, 3],
                "max_parallel": 2,
                "steps": [
                    _mark("x", "{{ inputs.n + item }}"),
                    _mark("y", "{{ steps.x.output.n + item }}", foreach=[10, 20]),
                ],
                "outputs": "{{ output.y | map(attribute='n') | list }}",
            }
        ],
        lambda n: [[n + i + 1 + more + 1 for more in (10, 20)] for i in (1, 2, 3)],
        "{{ steps.outer.output }}",
    ),
    "family": Shape(
        [
            {"id": "children", "workflow": "child", "foreach": [100, 200], "with": {"n": "{{ inputs.n + item }}"}},
            {"id": "bad", "workflow": "bad_child", "with": {"n": _N}, "continue_on_error": True},
            _mark("end"),
        ],
        lambda n: [[n + 102, n + 202], "ChildFailed"],
        ["{{ steps.children.output }}", "{{ steps.bad.error.type }}"],
    ),
    "awaiting": Shape(
        [
            _mark("a"),
            {"id": "parcel", "wait_for": {"event": "parcel_arrived", "match": {"n": _N}, "timeout": "1h"}},
            _mark("b", "{{ steps.parcel.output.data.n }}"),
        ],
        lambda n: n + 1,
        _last("b"),
        helped_by="event",
    ),
    "sleeper": Shape(
        [_mark("a"), {"id": "s", "sleep": "15ms"}, _after("b", "a"), {"id": "t", "sleep": "25ms"}, _after("c", "b")],
        lambda n: n + 3,
        _last("c"),
    ),
    "stubborn": Shape(
        [
            _mark("a", shaky=3, retry={"attempts": 9, "initial": "3ms", "backoff": "constant"}),
            _after("b", "a", shaky=2, retry={"attempts": 9, "initial": "2ms"}),
        ],
        lambda n: n + 2,
        _last("b"),
    ),
    "saga": Shape(
        [
            _mark("a", compensate=_UNDO),
            _after("b", "a", compensate=_UNDO),
            _after("c", "b", compensate=_UNDO),
            _after("d", "c", boom=True, retry={"attempts": 2, "initial": "1ms"}),
        ],
        None,
        status="failed",
        undone=("c~undo", "b~undo", "a~undo"),
    ),
    "release": Shape(
        [_mark("a"), {"id": "ok", "approve": {"message": "Ship it?", "roles": ["admin"]}}, _after("b", "a")],
        lambda n: [n + 2, True],
        [_last("b"), "{{ steps.ok.output.approved }}"],
        helped_by="approval",
    ),
    "hooked": Shape(
        [_mark("a"), {"id": "h", "hook": "on_message", "with": {"text": "{{ steps.a.output.n }} !"}}, _mark("b")],
        lambda n: [{"seen": f"{n + 1} !"}],
        "{{ steps.h.output.replies }}",
    ),
    "limited": Shape(
        [_mark("a"), {"id": "s", "sleep": "4ms"}, _after("b", "a")],
        lambda n: n + 2,
        _last("b"),
        head={"concurrency": {"limit": 3}},
    ),
    "signalled": Shape(
        [
            {
                "id": "g",
                "total_timeout": "1h",
                "steps": [_mark("a"), {"id": "w", "wait_for": {"signal": "go", "timeout": "1h"}}],
                "outputs": "{{ steps.w.output }}",
            },
            {"id": "tell", "emit": "parcel_signed", "with": {"n": _N}},
        ],
        lambda n: {"n": n},
        "{{ steps.g.output }}",
        helped_by="signal",
    ),
    "cancelled": Shape(
        [_mark("a", compensate=_UNDO), {"id": "c", "workflow": "sleepy_child"}, _mark("b")],
        None,
        status="cancelled",
        undone=("a~undo",),
        helped_by="cancel",
    ),
    "in_vain": Shape(
        [
            _mark("a"),
            {"id": "w", "wait_for": {"event": "never_comes", "timeout": "20ms", "on_timeout": "continue"}},
            {"id": "beside", "needs": ["a"], "sleep": "10ms"},
            _after("b", "a", needs=["w", "beside"]),
        ],
        lambda n: n + 2,
        _last("b"),
    ),
    "stopped": Shape(
        [_mark("a"), {"id": "s", "sleep": "5ms"}, _after("b", "a"), _after("c", "b"), _after("d", "c")],
        lambda n: n + 4,
        _last("d"),
        helped_by="pause",
    ),
    "lenient": Shape(
        [
            _mark("some", "{{ item }}", foreach=[1, 2, 3, 4], on_item_error="ignore", boom="{{ item == 3 }}"),
            _mark("bad", boom=True, continue_on_error=True),
            _mark("end"),
        ],
        lambda n: [[{"n": 2}, {"n": 3}, None, {"n": 5}], "failed", n + 1],
        ["{{ steps.some.output }}", "{{ steps.bad.status }}", _last("end")],
    ),
}

#: Answers the hook that a shape calls. A file, so that it is there before recovery calls it.
HOOK_FILE = """
def on_message(message):
    return {"seen": message["text"]}
"""

#: Started by others only.
CHILDREN: dict[str, list[dict[str, Any]]] = {
    "child": [_mark("a"), {"id": "s", "sleep": "3ms"}, _after("b", "a")],
    "bad_child": [_mark("a", boom=True)],
    "sleepy_child": [{"id": "z", "sleep": "1h"}],
}


def definitions() -> list[dict[str, Any]]:
    """All of them."""
    children = [
        {"slug": slug, "steps": steps, **({"outputs": _last("b")} if slug == "child" else {})}
        for slug, steps in CHILDREN.items()
    ]
    return [*children, *(shape.definition(slug) for slug, shape in SHAPES.items())]
