"""The graph of a definition, and what has come of each step in a run of it. Pure data; `drawing.py` draws it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eventcore.workflows.definition import Step, Workflow, needs_of

#: What a step that has not begun is shown as.
PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Node:
    """One step.

    Attributes:
        path: `group/inner` for a step inside a group.
        does: kind and target, such as `plugin classify_text`.
        notes: what modifies it, for people: `if ...`, `foreach, 5 at once`, `3 tries`.
        status: in a run, else empty.
    """

    path: str
    does: str
    notes: tuple[str, ...]
    status: str = ""

    @property
    def label(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Graph:
    """Steps in the order of the text, and (before, after) pairs of their paths. Groups are their steps."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]

    def following(self) -> dict[str, list[str]]:
        """What comes right after each step."""
        found: dict[str, list[str]] = {node.path: [] for node in self.nodes}
        for before, after in self.edges:
            found[before].append(after)
        return found

    def layers(self) -> list[list[str]]:
        """Steps by their distance from the start: each is in the layer after the last one that it needs."""
        before: dict[str, list[str]] = {node.path: [] for node in self.nodes}
        for one, other in self.edges:
            before[other].append(one)
        depth: dict[str, int] = {}
        for path in self.ordered():
            depth[path] = max((depth[one] + 1 for one in before[path]), default=0)
        layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
        for node in self.nodes:
            layers[depth[node.path]].append(node.path)
        return layers

    def ordered(self) -> list[str]:
        """Every step after all that it needs; otherwise in the order of the text."""
        missing = {node.path: 0 for node in self.nodes}
        for _, after in self.edges:
            missing[after] += 1
        following, left, found = self.following(), [node.path for node in self.nodes], list[str]()
        while left:
            path = next(one for one in left if missing[one] == 0)
            left.remove(path)
            found.append(path)
            for after in following[path]:
                missing[after] -= 1
        return found


def graph_of(workflow: Workflow, statuses: Mapping[str, str] | None = None) -> Graph:
    """The graph of a definition.

    Args:
        statuses: of a run, by path without iterations; steps that are not in it have not begun.
    """
    builder = _Builder(statuses)
    builder.block(workflow.steps, "", ())
    return Graph(workflow.slug, tuple(builder.nodes), tuple(builder.edges))


class _Builder:
    def __init__(self, statuses: Mapping[str, str] | None) -> None:
        self._statuses = statuses
        self.nodes: list[Node] = []
        self.edges: list[tuple[str, str]] = []

    def block(self, steps: tuple[Step, ...], prefix: str, before: tuple[str, ...]) -> tuple[str, ...]:
        """Add the steps of a block that follows `before`; return those that nothing in the block follows."""
        needs, ends = needs_of(steps), dict[str, tuple[str, ...]]()
        for step in _sorted(steps, needs):
            path = prefix + step.id
            after = tuple(end for need in needs[step.id] for end in ends[need]) or before
            self.edges += [(one, path) for one in dict.fromkeys(after)]
            self._node(step, path)
            inside = self.block(step.steps, path + "/", (path,)) if step.steps else ()
            ends[step.id] = inside or (path,)
        needed = {need for each in needs.values() for need in each}
        return tuple(end for step in steps if step.id not in needed for end in ends[step.id])

    def _node(self, step: Step, path: str) -> None:
        status = "" if self._statuses is None else self._statuses.get(path, PENDING)
        self.nodes.append(Node(path, _does(step), tuple(_notes(step)), status))


def _sorted(steps: tuple[Step, ...], needs: Mapping[str, tuple[str, ...]]) -> list[Step]:
    done: set[str] = set()
    left, found = list(steps), list[Step]()
    while left:
        step = next(one for one in left if done.issuperset(needs[one.id]))
        left.remove(step)
        found.append(step)
        done.add(step.id)
    return found


def _does(step: Step) -> str:
    kind = step.kinds[0]
    match kind:
        case "wait_for":
            wait = step.wait_for
            assert wait is not None
            return f"wait for {wait.event}" if wait.event else f"wait for signal {wait.signal}"
        case "sleep":
            return f"sleep {_duration(step.sleep or 0)}"
        case "steps":
            return "group"
        case "approve":
            return f"approve {step.approve.message}".rstrip() if step.approve else "approve"
    return f"{kind} {getattr(step, kind)}"


def _notes(step: Step) -> list[str]:
    notes: list[str] = []
    if step.if_ is not None:
        notes.append("if " + step.if_.replace("{{", "").replace("}}", "").strip())
    if step.foreach is not None:
        notes.append(f"for each, {step.max_parallel} at once")
    if step.retry is not None:
        notes.append(f"{step.retry.attempts} tries")
    if step.timeout is not None:
        notes.append(f"{_duration(step.timeout)} at most")
    if step.continue_on_error:
        notes.append("may fail")
    if step.compensate is not None:
        undo = step.compensate
        notes.append(f"undone by {undo.plugin or undo.workflow or undo.emit}")
    return notes


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
