"""All mistakes of a definition at once, though each look stops at the first kind that it finds.

What is wrong is taken out of a copy and the rest looked at again, until nothing more is found. What only follows from
the taking out is not told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from eventcore.kernel.errors import InvalidDefinition, Problem
from eventcore.workflows.definition import STEP_KINDS, TRIGGER_KINDS, Source, Workflow, check_value

_ROUNDS = 10
_PART = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
#: What stands in for a kind that was taken out, so that the rest can be read.
_STAND_IN = {"steps": ("sleep", 1, STEP_KINDS), "triggers": ("webhook", "mended", TRIGGER_KINDS)}


def all_mistakes(
    value: Any, place: Source, first: Iterable[Problem], look: Callable[[Workflow], list[Problem]]
) -> list[Problem]:
    """What is wrong in a definition, in all looks.

    Args:
        value: what stands in the file.
        first: what the first look has found.
        look: what is wrong in a definition that can be read; may raise InvalidDefinition.
    """
    told, mending = [*first], _Mending(deepcopy(value))
    fresh = told
    for _ in range(_ROUNDS):
        taken = [problem for problem in fresh if mending.take_out(problem.key)]
        if not taken:
            break
        done = False
        try:
            found, done = look(check_value(mending.value, place)), True
        except InvalidDefinition as more:
            found = more.problems
        known = {str(one) for one in told}
        fresh = [one for one in found if str(one) not in known and not mending.explains(one.key)]
        told += fresh
        if done:
            break
    return told


class _Mending:
    """A copy of a definition without what is wrong in it."""

    def __init__(self, value: Any) -> None:
        self.value = value
        #: Keys that were taken out, and those of whole steps and triggers of which too little is left.
        self._gone: set[str] = set()
        self._hollow: set[str] = set()

    def explains(self, key: str) -> bool:
        """Whether a mistake there may come from the taking out: above it, in it, or in what is hollow now."""
        if any(f"{key}.".startswith((f"{one}.", f"{one}[")) for one in (*self._gone, *self._hollow)):
            return True
        return not key or any(one.startswith((f"{key}.", f"{key}[")) for one in self._gone)

    def take_out(self, key: str) -> bool:
        """Take out what stands at a key; return whether anything was."""
        if not key and isinstance(self.value, dict) and "slug" not in self.value:
            self.value["slug"] = "mended"
            return True
        *around, last = _parts(key) or [0]
        holder = self.value
        for part in around:
            try:
                holder = holder[part]
            except (KeyError, IndexError, TypeError):
                return False
        if last == "id" and len(around) > 1:
            return self._rename(holder, around, key)
        if not isinstance(holder, dict) or last not in holder or last == "steps":
            return False
        del holder[last]
        self._gone.add(key)
        if key == "slug":
            self.value["slug"] = "mended"
        self._fill(holder, around, key)
        return True

    def _rename(self, holder: Any, around: list[Any], key: str) -> bool:
        """Give one of two that have the same id another. One that is no id stays: others name it."""
        beside = self.value
        for part in around[:-1]:
            beside = beside[part]
        ids = [one.get("id") for one in beside if isinstance(one, dict)]
        if not isinstance(holder, dict) or ids.count(holder.get("id")) < 2:
            return False
        holder["id"] = f"mended_{len(self._gone)}"
        self._gone.add(key)
        return True

    def _fill(self, holder: dict[str, Any], around: list[Any], key: str) -> None:
        if len(around) < 2 or around[-2] not in _STAND_IN:
            return
        name, value, kinds = _STAND_IN[around[-2]]
        if not any(kind in holder for kind in kinds):
            holder[name] = value
            self._hollow.add(key[: key.rindex(".")])


def _parts(key: str) -> list[Any]:
    return [int(index) if index else name for index, name in _PART.findall(key)]
