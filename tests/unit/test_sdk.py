"""What plugin authors import: verdicts, stage decorators, and `ctx` outside and inside a call."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eventcore import sdk
from eventcore.sdk import Answer, Deny, Event, HookMark, PluginError, Replace, Stop, bind, ctx, mark_of

ROOT = Path(sdk.__file__).parents[2]


def test_needs_only_the_standard_library() -> None:
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); before = set(sys.modules); import eventcore.sdk;"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, check=True)
    loaded = json.loads(done.stdout)
    ours = [name for name in loaded if name.split(".")[0] == "eventcore"]
    assert all(name in ("eventcore", "eventcore.sdk") or name.startswith("eventcore.sdk.") for name in ours)
    assert {name.split(".")[0] for name in loaded} - {"eventcore"} <= sys.stdlib_module_names


@pytest.mark.parametrize("verdict", [Deny("no"), Replace(1), Stop({})])
def test_verdicts_are_frozen_and_slotted(verdict: Any) -> None:
    name = dataclasses.fields(verdict)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(verdict, name, "other")
    assert not hasattr(verdict, "__dict__")


def test_decorators_bare_and_with_arguments() -> None:
    @sdk.gate
    def on_message(message: Any) -> None: ...

    @sdk.gate(priority=5, recheck=True, before="audit", after=["a", "b"])
    def on_file_upload(info: Any) -> None: ...

    @sdk.filter("on_message", priority=-1)
    def shorten(message: Any) -> None: ...

    @sdk.observe
    def on_startup() -> None: ...

    @sdk.reply()
    def on_shutdown() -> None: ...

    assert mark_of(on_message) == HookMark("gate", hook="on_message")
    assert mark_of(on_file_upload) == HookMark("gate", 5, ("audit",), ("a", "b"), True, "on_file_upload")
    assert mark_of(shorten) == HookMark("filter", -1, hook="on_message")
    assert mark_of(on_startup).stage == "observe"  # type: ignore[union-attr]
    assert mark_of(on_shutdown).stage == "reply"  # type: ignore[union-attr]
    assert on_message.__eventcore_hook__ is mark_of(on_message)  # type: ignore[attr-defined]
    assert mark_of(print) is None


def test_a_mark_without_a_hook_is_refused() -> None:
    with pytest.raises(PluginError, match=r'@gate\("on_message"\)'):

        @sdk.gate
        def check(message: Any) -> None: ...

    with pytest.raises(PluginError, match="begins with on_"):
        sdk.gate("message")


def test_ctx_outside_a_call_says_so() -> None:
    for use in (lambda: ctx.emit("x"), lambda: ctx.tenant, lambda: ctx.memory.read("q"), lambda: ctx.log("info", "x")):
        with pytest.raises(PluginError, match="outside a call"):
            use()


class _Binding:
    tenant, actor, permissions, config = "acme", "user:ada", frozenset({"chat"}), {"k": 1}

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def ask(self, method: str, params: dict[str, Any]) -> Answer[Any]:
        self.asked.append((method, params))
        return Answer(len(self.asked))

    def tell(self, level: str, message: str, logger: str = "") -> None:
        self.asked.append((level, {"message": message}))


def test_ctx_speaks_for_its_binding_only_inside_it() -> None:
    binding = _Binding()
    with bind(binding):
        assert (ctx.tenant, ctx.actor) == ("acme", "user:ada")
        assert (ctx.permissions, dict(ctx.config)) == (frozenset({"chat"}), {"k": 1})
        assert ctx.emit("a", {"x": 1}, key="k", now=True).value == 1
        ctx.memory.read("w", limit=2)
        ctx.memory.write("w", 3)
        ctx.workflows.start("follow_up", {"a": 1})
        ctx.request("summarizer", {"t": "x"}, timeout=3)
        ctx.log("info", "hello")
        ctx.ask("chat.send", channel="#g")
    assert binding.asked == [
        ("emit", {"type": "a", "data": {"x": 1}, "key": "k", "now": True}),
        ("memory.read", {"query": "w", "limit": 2}),
        ("memory.write", {"query": "w", "result": 3}),
        ("workflows.start", {"slug": "follow_up", "inputs": {"a": 1}}),
        ("request", {"intent": "summarizer", "params": {"t": "x"}, "timeout": 3}),
        ("info", {"message": "hello"}),
        ("chat.send", {"channel": "#g"}),
    ]
    with pytest.raises(PluginError):
        _ = ctx.tenant


def test_an_answer_that_is_not_there_yet_wants_to_be_awaited() -> None:
    import asyncio

    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        answer = Answer(pending=future)
        with pytest.raises(PluginError, match="await it"):
            _ = answer.value
        future.set_result(3)
        assert answer.value == await answer == 3

    asyncio.run(main())


def test_event_reads_as_attributes_and_keys() -> None:
    event = Event({"type": "x", "data": {"a": 1}})
    assert event.type == event["type"] == "x"
    assert event.key is None
    with pytest.raises(KeyError):
        event["key"]
    with pytest.raises(AttributeError):
        _ = event.__no_such__
