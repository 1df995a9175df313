"""Workflows written in Python: the same model as YAML, with names that an editor completes.

flow = Flow("triage", inputs={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
flow.on("on_message", with_={"text": flow.event.data.text})
label = flow.plugin("classify", "classify_text", with_={"text": flow.inputs.text}, retry={"attempts": 3})
flow.emit("tell", "message_labelled", with_={"label": label.output.label})
core.workflows.define(flow.build(outputs={"label": label.output.label}))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eventcore.workflows.definition import Source, Workflow, parse_workflow


class Ref:
    """A value that is there when the workflow runs; as text it is the expression `{{ ... }}`."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Ref:
        if name.startswith("__"):
            raise AttributeError(name)
        return Ref(f"{self._path}.{name}")

    def __getitem__(self, key: str | int) -> Ref:
        return Ref(f"{self._path}[{key!r}]")

    def __str__(self) -> str:
        return "{{ " + self._path + " }}"

    def __repr__(self) -> str:
        return f"Ref({self._path!r})"


class StepRef(Ref):
    """A step that was added; `.output`, `.status` and `.error` are what it comes to."""

    __slots__ = ("id",)

    def __init__(self, id: str) -> None:
        super().__init__(f"steps.{id}")
        self.id = id


class _Block:
    """Adds steps. Each method takes the step's id first, and the keys of YAML as keyword arguments: `with_`, `if_`,
    `needs` (steps or ids), `foreach`, `max_parallel`, `retry`, `timeout`, `compensate` and so on."""

    def __init__(self) -> None:
        self._steps: list[dict[str, Any]] = []

    def plugin(self, id: str, intent: str, **keys: Any) -> StepRef:
        """Call an intent."""
        return self._add(id, "plugin", intent, keys)

    def workflow(self, id: str, slug: str, **keys: Any) -> StepRef:
        """Run another workflow and wait for its end."""
        return self._add(id, "workflow", slug, keys)

    def emit(self, id: str, event: str, **keys: Any) -> StepRef:
        """Emit an event."""
        return self._add(id, "emit", event, keys)

    def hook(self, id: str, hook: str, **keys: Any) -> StepRef:
        """Call a hook."""
        return self._add(id, "hook", hook, keys)

    def wait_for(self, id: str, event: str, *, match: Mapping[str, Any] | None = None, **keys: Any) -> StepRef:
        """Wait for an event; `timeout` and `on_timeout` belong to the wait."""
        wait = {"event": event, "match": match or {}, **_taken(keys, "timeout", "on_timeout")}
        return self._add(id, "wait_for", wait, keys)

    def signal(self, id: str, signal: str, **keys: Any) -> StepRef:
        """Wait for a signal to the run."""
        return self._add(id, "wait_for", {"signal": signal, **_taken(keys, "timeout", "on_timeout")}, keys)

    def approve(self, id: str, message: str = "", **keys: Any) -> StepRef:
        """Wait for a person's yes or no; `roles`, `timeout` and `on_timeout` belong to the question."""
        return self._add(id, "approve", {"message": message, **_taken(keys, "roles", "timeout", "on_timeout")}, keys)

    def sleep(self, id: str, duration: str | float, **keys: Any) -> StepRef:
        """Wait for a time."""
        return self._add(id, "sleep", duration, keys)

    def group(self, id: str, steps: Group, **keys: Any) -> StepRef:
        """Steps that are one step together."""
        return self._add(id, "steps", steps._steps, keys)

    def _add(self, id: str, kind: str, value: Any, keys: dict[str, Any]) -> StepRef:
        step = {"id": id, kind: value, **{name.removesuffix("_"): one for name, one in keys.items()}}
        if step.get("needs") is not None:
            step["needs"] = [one.id if isinstance(one, StepRef) else one for one in step["needs"]]
        self._steps.append(_plain(step))
        return StepRef(id)


class Group(_Block):
    """The steps inside a group."""


class Flow(_Block):
    """A workflow that is being written.

    Args:
        slug: what starts it.
        keys: other keys of a definition: `name`, `description`, `inputs`, `concurrency`, `rate`, `priority`.
    """

    inputs, event, run, item, secrets = Ref("inputs"), Ref("event"), Ref("run"), Ref("item"), Ref("secrets")

    def __init__(self, slug: str, **keys: Any) -> None:
        super().__init__()
        self._head: dict[str, Any] = {"slug": slug, **keys}
        self._triggers: list[dict[str, Any]] = []

    def on(self, event: str, **keys: Any) -> Flow:
        """Start with an event that matches."""
        return self._trigger("event", event, keys)

    def cron(self, schedule: str, **keys: Any) -> Flow:
        """Start by the clock."""
        return self._trigger("cron", schedule, keys)

    def webhook(self, name: str, **keys: Any) -> Flow:
        """Start with a call from outside."""
        return self._trigger("webhook", name, keys)

    def command(self, command: str, **keys: Any) -> Flow:
        """Start with a chat command."""
        return self._trigger("command", command, keys)

    def _trigger(self, kind: str, value: str, keys: dict[str, Any]) -> Flow:
        self._triggers.append(_plain({kind: value, **{name.removesuffix("_"): one for name, one in keys.items()}}))
        return self

    def as_dict(self, outputs: Any = None) -> dict[str, Any]:
        """The definition as a mapping."""
        found = {**self._head, "steps": self._steps}
        if self._triggers:
            found["triggers"] = self._triggers
        if outputs is not None:
            found["outputs"] = _plain(outputs)
        return found

    def build(self, outputs: Any = None) -> Workflow:
        """The checked model.

        Raises:
            InvalidDefinition: with the key of each mistake.
        """
        found: tuple[Workflow, Source] = parse_workflow(self.as_dict(outputs), f"<flow {self._head['slug']}>")
        return found[0]


def _taken(keys: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: keys.pop(name) for name in names if name in keys}


def _plain(value: Any) -> Any:
    """With expressions in place of references."""
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value
