"""Steps that wait for events: who is woken by an event, found with a look-up however many wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from eventcore.kernel.event import Event
from eventcore.kernel.json import decode, encode, encode_sorted
from eventcore.kernel.names import is_literal, pattern
from eventcore.kernel.records import Batch, Guard, JournalEntry, Listening, LogEntry, Timer
from eventcore.workflows.plan import SIGNALLED

#: Which paths of an event are compared; then the values they must have, as JSON.
Shape: TypeAlias = tuple[str, ...]
_Shapes: TypeAlias = dict[Shape, dict[bytes, dict[str, Listening]]]

_NOTHING = object()
#: Up to here every whole number is a float of its own.
_MAX_WHOLE = 2.0**53


def value_at(event: Mapping[str, Any], path: str) -> Any:
    """What stands at a path of an event: `order.id` of its data, `event.actor` of its envelope."""
    parts = path.split(".")
    value: Any = event if parts[0] == "event" else event.get("data")
    for part in parts[1:] if parts[0] == "event" else parts:
        if not isinstance(value, Mapping) or part not in value:
            return _NOTHING
        value = value[part]
    return value


def fits(event: Mapping[str, Any], match: Mapping[str, Any]) -> bool:
    """Whether every path has its value, by the same rule as the index."""
    found = [value_at(event, path) for path in match]
    return _NOTHING not in found and _comparable(found) == _comparable([*match.values()])


def _comparable(values: list[Any]) -> bytes:
    """Equal values have equal bytes: 1 and 1.0 are equal, 1 and true are not, the order of keys does not count."""
    return encode_sorted([_whole(value) for value in values])


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE:
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def wake_timer(row: Listening, event: Event) -> Timer:
    """The row that tells a run of its event: due at once, so it is there after a crash too."""
    body = event.data if event.type == SIGNALLED else event.as_dict()
    told: dict[str, Any] = {"path": row.path, "ref": event.id}
    if decode(row.raw)["kind"] == "approval":
        data = event.data
        told["output"] = {key: data.get(key) for key in ("approved", "by", "note")} | {"at": event.at}
        if not data.get("approved"):
            note = f": {data['note']}" if data.get("note") else ""
            told["error"] = {"type": "ApprovalDenied", "message": f"denied by {data.get('by')}{note}"}
    else:
        told["output"] = body.get("data") if event.type == SIGNALLED else body
    return Timer(f"{row.id}!{event.id}", row.tenant, event.at, row.run, encode(told))


class Listeners:
    """The index of steps that wait for events. Implements `Contributor`: an event's commit wakes who waits for it."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Listening, _Shapes, Shape, bytes]] = {}
        self._literal: dict[tuple[str, str], _Shapes] = {}
        self._patterns: dict[tuple[str, str], _Shapes] = {}
        #: Rows whose wake is in a commit that is under way or was made.
        self.woken: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Listening) -> None:
        """From now on this step waits."""
        self.remove(row.id)
        match = decode(row.raw)["match"]
        shape: Shape = tuple(sorted(match))
        values = _comparable([match[path] for path in shape])
        table = self._literal if is_literal(row.event) else self._patterns
        shapes = table.setdefault((row.tenant, row.event), {})
        shapes.setdefault(shape, {}).setdefault(values, {})[row.id] = row
        self._rows[row.id] = (row, shapes, shape, values)

    def remove(self, row_id: str) -> None:
        """It waits no more."""
        self.woken.discard(row_id)
        found = self._rows.pop(row_id, None)
        if found is None:
            return
        row, shapes, shape, values = found
        del shapes[shape][values][row_id]
        if not shapes[shape][values]:
            del shapes[shape][values]
        if not shapes[shape]:
            del shapes[shape]
        if not shapes:
            (self._literal if is_literal(row.event) else self._patterns).pop((row.tenant, row.event), None)

    def events(self) -> list[tuple[str, str]]:
        """The (tenant, event type or pattern) pairs that anybody waits for."""
        return [*self._literal, *self._patterns]

    def find(self, event: Event) -> list[Listening]:
        """Who waits for this event."""
        if not self._rows:
            return []
        shapes = [self._literal[key]] if (key := (event.tenant, event.type)) in self._literal else []
        for (tenant, text), more in self._patterns.items():
            if tenant == event.tenant and pattern(text).fullmatch(event.type):
                shapes.append(more)
        found: list[Listening] = []
        if shapes:
            facts = event.as_dict()
            for one in shapes:
                for shape, values in one.items():
                    wanted = [value_at(facts, path) for path in shape]
                    if _NOTHING not in wanted:
                        found.extend(values.get(_comparable(wanted), {}).values())
        return found

    def contribute(self, entries: Sequence[LogEntry]) -> tuple[Batch, tuple[Guard, ...]] | None:
        if not self._rows:
            return None
        batch = Batch()
        for entry in entries:
            event = entry.event if isinstance(entry, JournalEntry) else entry
            for row in self.find(event):
                self.woken.add(row.id)
                batch.timers.append(wake_timer(row, event))
                batch.listening_done.append(row.id)
        return (batch, ()) if batch.timers else None
