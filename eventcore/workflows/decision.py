"""What a tick decides: the state after it, and everything to commit or to do because of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from eventcore.kernel.event import MAX_PAYLOAD
from eventcore.kernel.json import decode, encode
from eventcore.kernel.quick import Lately, late_list, maker
from eventcore.workflows.plan import Plan
from eventcore.workflows.state import SETTLED, UNDO, Entry, State, alive, apply, parent_of
from eventcore.workflows.ticks import Call, End, Listen, Publish, Wait

_entry = maker(Entry)

#: How large what a container gathers may be: the outputs of its items, each of which was small enough.
MAX_GATHERED = 16 * MAX_PAYLOAD
_LEVEL = re.compile(r"([^/\[]+)(?:\[(\d+)\])?(/|$)")


class _Secrets(dict[str, Any]):
    """`secrets.x` in an expression: a mark, which the runner replaces when it calls. The value is never here."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str)

    def __getitem__(self, name: str) -> dict[str, str]:
        return {"$secret": name}


_SECRETS = _Secrets()


_COMMITTED = frozenset({"entries", "waits", "waits_done", "timers_done", "listens", "listens_done", "children"})
_PLAIN = frozenset({"plan", "state", "end", "entries", "calls", "dirty"})


class Decision(Lately):
    """The state after a tick, and everything to commit or to do because of it.

    Attributes:
        waits_done: paths whose timers are over; `timers_done`: ids of other timer rows.
        listens_done: paths that listen no more.
        dropped: paths whose calls under way are of no use any more.
        children: runs to cancel or terminate.
        dirty: containers (the empty path: the run) to look at, because something in them changed.
    """

    entries: list[Entry] = late_list()
    calls: list[Call] = late_list()
    publishes: list[Publish] = late_list()
    waits: list[Wait] = late_list()
    waits_done: list[str] = late_list()
    timers_done: list[str] = late_list()
    listens: list[Listen] = late_list()
    listens_done: list[str] = late_list()
    dropped: list[str] = late_list()
    children: list[tuple[str, Literal["cancel", "terminate"]]] = late_list()
    dirty: list[str] = late_list()

    def __init__(self, plan: Plan, state: State) -> None:
        self.plan, self.state = plan, state
        self.end: End | None = None

    def write(self, type: str, path: str, attempt: int, **data: Any) -> None:
        """Write a journal entry, and let the state follow."""
        entry = _entry(type, path, attempt, data)
        self.entries.append(entry)
        apply(self.state, entry)
        if type == "step_completed":
            self.dirty.append(parent_of(path))

    def finish(self, end: End) -> None:
        """The run is over."""
        self.end = end
        self.state.ended = True

    def join(self, following: Decision) -> None:
        """Decide what a later tick decided as well. Both are plain."""
        self.entries.extend(following.entries)
        self.calls.extend(following.calls)
        self.state, self.end = following.state, following.end

    @property
    def says(self) -> bool:
        """Whether there is anything to commit."""
        if self.end is not None or self.__dict__.get("entries"):
            return True
        return any(rows and name in _COMMITTED for name, rows in self.__dict__.items())

    @property
    def begins(self) -> bool:
        """Whether anything is to be called once it is committed."""
        return bool(self.__dict__.get("calls"))

    @property
    def plain(self) -> bool:
        """Whether it has nothing but journal entries, calls and an end: most have not."""
        return self.__dict__.keys() <= _PLAIN

    def json(self, value: Any, what: str, limit: int = MAX_PAYLOAD) -> Any:
        """The value as it will be read back from the journal, so that a live run and a replayed one see the same."""
        return decode(encode(value, limit=limit, what=what))

    # -- below a path ------------------------------------------------------------------------------------------------

    def inside(self, path: str) -> Iterator[str]:
        """The paths of everything in a container; of the whole run for the empty path."""
        if not path:
            yield from list(self.state.steps)
            return
        starts = (path + "/", path + "[")
        yield from [one for one in self.state.steps if one.startswith(starts)]

    def touch(self, path: str) -> None:
        """Something happened in a step: look at everything around it, the run first."""
        while path:
            path = parent_of(path)
            if path in self.dirty:
                self.dirty.remove(path)  # the outermost is looked at first
            self.dirty.append(path)

    def busy(self, path: str) -> bool:
        """Whether anything in a container is being called."""
        steps = self.state.steps
        return any(
            steps[one].status == "running" and not steps[one].inside and alive(self.state, one)
            for one in self.inside(path)
        )

    def drop(self, path: str, *, children: Literal["cancel", "terminate"] = "cancel", settle: bool = False) -> None:
        """Let go of everything in a container that is under way or waits.

        Args:
            settle: write that what waits is cancelled; children are waited for.
        """
        gone = {one for one in self.inside(path) if self.state.steps[one].status not in SETTLED}
        self.waits = [wait for wait in self.waits if wait.path not in gone]
        self.listens = [listen for listen in self.listens if listen.path not in gone]
        self.calls = [call for call in self.calls if call.path not in gone]
        for one in [one for one in self.state.steps if one in gone]:
            step = self.state.steps[one]
            if step.status == "running":
                if step.deadline and step.inside:
                    self.waits_done.append(one)
                if not step.inside:
                    self.dropped.append(one)
                continue
            if step.timed:
                self.waits_done.append(one)
            if step.waits in ("event", "approval"):
                self.listens_done.append(one)
            if step.waits == "child":
                self.children.append((step.ref, children))
            elif settle:
                self.write("step_completed", one, step.attempt, status="cancelled")

    # -- expressions -------------------------------------------------------------------------------------------------

    def scope(self, path: str) -> dict[str, Any]:
        """The names that the expressions of a step may use."""
        scope, path = self.state.scope(), path.removesuffix(UNDO)  # what undoes an item sees it as its step did
        if "[" in path or "/" in path:
            self._nested(path, scope)
        scope["secrets"] = _SECRETS
        return scope

    def _nested(self, path: str, scope: dict[str, Any]) -> None:
        """Add the item, and the steps of the groups around the step; inner names hide outer ones."""
        states, steps = self.state.steps, dict(self.state.views)
        for match in _LEVEL.finditer(path):
            container, index, more = path[: match.end(1)], match[2], match[3]
            if index is not None:
                items = states[container].items or []
                scope["item"], scope["index"] = items[int(index)], int(index)
            if more:
                block = path[: match.end() - 1]
                for child in self.plan.node(block).children:
                    state = states.get(f"{block}/{child.id}")
                    if state is not None:
                        steps[child.id] = state.view()
                    else:
                        steps.pop(child.id, None)
        scope["steps"] = steps
