"""Hook calls: stages, verdicts, failures, order, commands."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.hooks.registry import Answer, ChatCommand, Handler, HookRegistry
from eventcore.hooks.specs import HOOKS
from eventcore.kernel.errors import Conflict, InvalidInput, InvalidPayload, NotFound
from eventcore.kernel.event import Event
from eventcore.kernel.json import encode_sorted, text_digest
from eventcore.kernel.records import Batch, Key, KeyAbsent
from eventcore.sdk import Deny, Replace, Stop, gate, observe
from eventcore.sdk import filter as filters

pytestmark = pytest.mark.anyio


async def of_type(core: EventCore, pattern: str) -> list[Event]:
    return [event async for event in core.history.query(type=pattern)]


def answering(value: Any, seen: list[Any] | None = None) -> Callable[[Any], Any]:
    async def handler(payload: Any) -> Any:
        if seen is not None:
            seen.append(payload)
        return value

    return handler


async def test_effects_that_are_refused_do_not_take_the_record_along(core: EventCore) -> None:
    staged = core.bus.build("order_noted", {"n": 1}, core.bus.context())
    taken = Key("default", "test", "k", "digest", "other", 9e9)
    await core.engine.store.commit(Batch(keys=[taken]))

    async def call(args: Any, context: Any, *, effects: bool, timeout: float) -> Answer:
        return Answer({"text": "ok"}, Batch(log=[staged]), (KeyAbsent("default", "test", "k", 0.0),))

    core.hooks.registry.register([Handler("on_message", "shop", "on_message", "reply", call)])
    with pytest.raises(Conflict):
        await core.hooks.call("on_message", {"text": "hi"})
    [end] = await of_type(core, "hook_completed")
    assert end.data["replies"] == 1
    assert await of_type(core, "order_noted") == []


# -- stages -----------------------------------------------------------------------------------------------------------


async def test_every_handler_is_called_and_the_call_is_recorded(core: EventCore) -> None:
    seen: list[Any] = []
    for owner in ("one", "two", "three"):
        core.hooks.register("on_message", answering({"from": owner}, seen), owner=owner)
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert [payload["text"] for payload in seen] == ["hi"] * 3
    [event] = await of_type(core, "on_message")
    assert outcome.event is not None
    assert (event.id, event.data["text"]) == (outcome.event.id, "hi")
    [end] = await of_type(core, "hook_completed")
    assert (end.causation_id, end.data["replies"]) == (event.id, 3)


async def test_the_order_of_stages(core: EventCore) -> None:
    order: list[str] = []

    def note(word: str, value: Any = None) -> Callable[[Any], Any]:
        async def handler(payload: Any) -> Any:
            recorded = bool(await of_type(core, "on_message"))
            order.append(f"{word}: {payload['text']}{' recorded' if recorded else ''}")
            return value

        return handler

    # Registered back to front: the order is the stages' own.
    core.hooks.register("on_message", note("observer"), stage="observe", owner="o")
    core.hooks.register("on_message", note("reply", {"text": "yes"}), owner="r")
    core.hooks.register("on_message", note("filter", Replace({"text": "changed"})), stage="filter", owner="f")

    @gate("on_message", recheck=True)
    async def again(payload: Any) -> None:
        await note("recheck")(payload)

    core.hooks.register("on_message", again, owner="a")
    core.hooks.register("on_message", note("gate"), stage="gate", owner="g")
    outcome = await core.hooks.call("on_message", {"text": "original", "extra": 1})
    assert order == [
        "recheck: original",
        "gate: original",
        "filter: original",
        "recheck: changed",
        "reply: changed recorded",
        "observer: changed recorded",
    ]
    assert outcome.replies == [{"text": "yes"}]
    assert outcome.value is not None
    assert outcome.value["text"] == (await of_type(core, "on_message"))[0].data["text"] == "changed"
    assert [(one.stage, one.status) for one in outcome.trace] == [
        *[("gate", "ok")] * 2,
        ("filter", "replaced"),
        ("gate", "ok"),
        ("reply", "ok"),
        ("observe", "ok"),
    ]


async def test_a_denied_payload_reaches_nobody_and_only_its_hash_is_kept(core: EventCore) -> None:
    reached: list[Any] = []
    core.hooks.register("on_message", answering(Deny("spam")), stage="gate", owner="guard")
    core.hooks.register("on_message", answering(None, reached), stage="gate", owner="later")
    for stage in ("filter", "reply", "observe"):
        core.hooks.register("on_message", answering(None, reached), stage=stage, owner=stage)
    core.workflows.define({"slug": "w", "triggers": [{"event": "on_message"}], "steps": [{"id": "a", "emit": "x"}]})
    core.bus.subscribe("**", lambda event: reached.append(event) if "hunter2" in event.raw.decode() else None)
    outcome = await core.hooks.call("on_message", {"text": "hunter2", "user": "eve"})
    await core.drain()
    assert (outcome.denied, outcome.reason, outcome.by) == (True, "spam", "guard.handler")
    assert (outcome.value, outcome.event, outcome.replies) == (None, None, [])
    assert reached == []
    everything = [event async for event in core.history.query()]
    assert not any(b"hunter2" in event.raw for event in everything)
    assert not any(event.type in ("on_message", "workflow_started") for event in everything)
    [record] = [event for event in everything if event.type == "hook_completed"]
    payload = {"text": "hunter2", "user": "eve", "channel": "#general"}
    assert record.data["payload_sha256"] == text_digest(encode_sorted(payload).decode())
    assert (record.data["by"], record.data["reason"]) == ("guard.handler", "spam")


async def test_a_recheck_gate_denies_what_filters_made(core: EventCore) -> None:
    reached: list[Any] = []

    @gate("on_message", recheck=True)
    async def no_shouting(message: Any) -> Deny | None:
        return Deny("shouting") if message["text"].isupper() else None

    @gate("on_message")
    async def only_before(message: Any) -> Deny | None:
        return Deny("never") if message["text"].isupper() else None

    core.hooks.register("on_message", no_shouting, owner="a")
    core.hooks.register("on_message", only_before, owner="b")
    core.hooks.register("on_message", answering(Replace({"text": "LOUD"})), stage="filter", owner="f")
    core.hooks.register("on_message", answering({"x": 1}, reached), owner="r")
    outcome = await core.hooks.call("on_message", {"text": "quiet"})
    assert (outcome.by, outcome.reason, reached) == ("a.no_shouting", "shouting", [])


async def test_handlers_cannot_change_each_others_payload(core: EventCore) -> None:
    def vandal(payload: Any) -> None:
        payload["text"] = "vandalised"
        payload["tags"].append("x")

    seen: list[Any] = []
    for stage in ("gate", "filter", "reply", "observe"):
        core.hooks.register("on_message", vandal, stage=stage, owner=f"a-{stage}", priority=9)  # type: ignore[arg-type]
        core.hooks.register("on_message", answering(None, seen), stage=stage, owner=f"b-{stage}")  # type: ignore[arg-type]
    outcome = await core.hooks.call("on_message", {"text": "fine", "tags": []})
    assert [(one["text"], one["tags"]) for one in seen] == [("fine", [])] * 4
    assert outcome.value == (await of_type(core, "on_message"))[0].data


# -- verdicts and failures --------------------------------------------------------------------------------------------


_NEVER = [False, True, "no", 0]
_WRONG = {
    "gate": [*_NEVER, {"deny": True}, Replace({"text": "x"}), Stop({})],
    "filter": [*_NEVER, {"deny": True}, Stop({})],
    "reply": [*_NEVER, Replace({"text": "x"})],
}


@pytest.mark.parametrize(("stage", "value"), [(stage, value) for stage, values in _WRONG.items() for value in values])
async def test_a_wrong_verdict_is_that_handlers_error_alone(core: EventCore, stage: Any, value: Any) -> None:
    core.hooks.register("on_message", answering(value), stage=stage, owner="wrong")
    core.hooks.register("on_message", answering({"text": "still here"}), owner="right")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert (outcome.denied, outcome.replies) == (False, [{"text": "still here"}])
    [error] = await of_type(core, "plugin_error")
    assert (error.data["plugin"], error.data["status"]) == ("wrong", "error")
    assert f"a {stage} answers" in error.data["error"]
    assert error.data["error"].endswith(f"not {type(value).__name__}")


@pytest.mark.parametrize("reply", [{"a": object()}, {"a": float("nan")}, {1: 2}, {"a": "\ud800"}, {"a": b"x"}])
async def test_a_reply_that_is_no_json_is_that_handlers_error(core: EventCore, reply: Any) -> None:
    core.hooks.register("on_message", answering(reply), owner="wrong")
    core.hooks.register("on_message", answering(Stop({"text": "right"})), owner="yes")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert outcome.replies == [{"text": "right"}]
    assert [error.data["plugin"] for error in await of_type(core, "plugin_error")] == ["wrong"]


@pytest.mark.parametrize("reason", [None, 7, object(), "\ud800", "x" * 400_000])
async def test_a_denial_holds_whatever_its_reason_is(core: EventCore, reason: Any) -> None:
    core.hooks.register("on_message", answering(Deny(reason)), stage="gate")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert outcome.denied
    assert isinstance(outcome.reason, str)
    assert len(await of_type(core, "hook_completed")) == 1


@pytest.mark.parametrize(
    "made", [{"text": 7}, {}, None, "text", {"text": float("nan")}, {"text": "x" * 70_000}, {"text": object()}]
)
async def test_what_a_filter_makes_is_checked(core: EventCore, made: Any) -> None:
    core.hooks.register("on_message", answering(Replace(made)), stage="filter", owner="wrong")
    core.hooks.register("on_message", answering(Replace({"text": "right"})), stage="filter", owner="yes")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert outcome.value is not None
    assert outcome.value["text"] == "right"
    [error] = await of_type(core, "plugin_error")
    assert (error.data["plugin"], "does not fit" in error.data["error"]) == ("wrong", True)


@pytest.mark.parametrize("message", ["boom", "\ud800", "x" * 400_000])
async def test_a_handler_that_raises_disturbs_nobody(core: EventCore, message: str) -> None:
    def raises(payload: Any) -> None:
        raise ValueError(message)

    for stage in ("gate", "filter", "reply", "observe"):
        core.hooks.register("on_message", raises, stage=stage, owner=stage)  # type: ignore[arg-type]
    core.hooks.register("on_message", answering({"text": "yes"}), owner="z")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert outcome.replies == [{"text": "yes"}]
    errors = await of_type(core, "plugin_error")
    assert [error.data["plugin"] for error in errors] == ["gate", "filter", "reply", "observe"]
    assert all(error.data["error"].startswith("ValueError: ") for error in errors)


async def test_a_timeout_of_the_handlers_own_is_not_ours(core: EventCore) -> None:
    async def raises(payload: Any) -> None:
        raise TimeoutError("the database is slow")

    core.hooks.register("on_message", raises)
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert (outcome.trace[0].status, outcome.trace[0].error) == ("error", "TimeoutError: the database is slow")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOOKS, "on_message", replace(HOOKS["on_message"], timeout=0.05))


@pytest.mark.usefixtures("impatient")
async def test_a_handler_that_hangs_is_cut_off_and_the_others_answer(core: EventCore) -> None:
    async def hangs(payload: Any) -> None:
        await anyio.sleep_forever()

    core.hooks.register("on_message", hangs, owner="a-slow")
    core.hooks.register("on_message", answering({"text": "yes"}), owner="b")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert outcome.replies == [{"text": "yes"}]
    [error] = await of_type(core, "plugin_error")
    assert (error.data["plugin"], error.data["status"]) == ("a-slow", "timeout")
    assert error.data["error"] == "ran over its 0.05 s"


async def test_the_budget_bounds_the_whole_call(core: EventCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HOOKS, "on_message", replace(HOOKS["on_message"], timeout=0.05, budget=0.12))

    async def hangs(payload: Any) -> None:
        await anyio.sleep_forever()

    for owner in ("a", "b", "c", "d", "e"):
        core.hooks.register("on_message", hangs, owner=owner)
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    statuses = [one.status for one in outcome.trace]
    assert (statuses[0], statuses[3:]) == ("timeout", ["skipped"] * 2)  # on a busy machine the third may be late too
    assert len(await of_type(core, "plugin_error")) == 5  # skips are never silent


async def fails(payload: Any) -> None:
    raise ValueError("bug")


async def sleeps(payload: Any) -> None:
    await anyio.sleep_forever()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "broken",
    [fails, sleeps, answering(False), answering("no")],
    ids=["raises", "hangs", "answers false", "answers text"],
)
async def test_policy_gates_fail_closed(core: EventCore, broken: Any) -> None:
    reached: list[Any] = []
    core.hooks.register("on_message", broken, stage="gate", owner="policy", tier="policy")
    core.hooks.register("on_message", answering({"x": 1}, reached))
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert outcome.denied
    assert "the policy gate failed and so denies" in (outcome.reason or "")
    assert reached == []
    assert [error.data["plugin"] for error in await of_type(core, "plugin_error")] == ["policy"]


async def test_stop_ends_the_replies_but_not_the_observers(core: EventCore) -> None:
    reached: list[str] = []
    core.hooks.register("on_message", answering(Stop({"n": 1})), owner="a")
    core.hooks.register("on_message", answering({"n": 2}), owner="b")
    core.hooks.register("on_message", lambda payload: reached.append("observer"), stage="observe", owner="c")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert (outcome.replies, reached) == ([{"n": 1}], ["observer"])


async def test_an_observers_answer_is_ignored(core: EventCore) -> None:
    core.hooks.register("on_message", answering("anything"), stage="observe")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert (outcome.replies, outcome.trace[0].status) == ([], "ok")


async def test_payloads_are_checked(core: EventCore) -> None:
    with pytest.raises(InvalidPayload, match="on_message: text"):
        await core.hooks.call("on_message", {})
    with pytest.raises(InvalidPayload, match="on_file_upload: size"):
        await core.hooks.call("on_file_upload", {"name": "a", "size": -1})
    with pytest.raises(NotFound, match="did you mean 'on_message'"):
        await core.hooks.call("on_mesage", {"text": "x"})
    with pytest.raises(NotFound, match="on_message"):
        core.hooks.register("on_mesage", fails)
    assert await of_type(core, "on_*") == []


async def test_a_workflow_starts_in_the_messages_own_commit(core: EventCore) -> None:
    batches: list[list[str]] = []
    stop = core.engine.store.watch(
        lambda entries: batches.append([getattr(entry, "event", entry).type for entry in entries])
    )
    core.workflows.define(
        {
            "slug": "triage",
            "triggers": [{"event": "on_message", "with": {"text": "{{ event.data.text }}"}}],
            "steps": [{"id": "pause", "sleep": 0.001}],
        }
    )
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    stop()
    assert batches[0] == ["on_message", "workflow_started", "step_started"]
    events = [event async for event in core.history.query(correlation=outcome.event.correlation_id)]  # type: ignore[union-attr]
    positions = [event.position for event in events[:3]]
    assert positions == list(range(positions[0], positions[0] + 3))
    assert (events[1].causation_id, events[1].data["inputs"]) == (events[0].id, {"text": "hi"})


# -- order ------------------------------------------------------------------------------------------------------------


async def _never(*args: Any, **kwargs: Any) -> Answer:
    return Answer()


def handler(owner: str, **more: Any) -> Handler:
    return Handler("on_message", owner, "on_message", more.pop("stage", "reply"), _never, **more)


def names(handlers: list[Handler]) -> list[str]:
    registry = HookRegistry()
    for one in handlers:
        registry.register([one])
    return [one.owner for one in registry.ordered("on_message")["reply"]]


def test_order_is_tier_then_relations_then_priority_then_name_then_line() -> None:
    handlers = [
        handler("z-policy", tier="policy"),
        handler("watch", tier="observer", priority=99),
        handler("b"),
        handler("a"),
        handler("important", priority=5),
        handler("late", priority=9, after=("b",)),
        handler("early", priority=-9, before=("a",)),
    ]
    expected = ["z-policy", "important", "b", "late", "early", "a", "watch"]
    rng = random.Random(7)
    for _ in range(30):
        rng.shuffle(handlers)
        assert names(handlers) == expected


def test_two_functions_of_one_owner_stand_as_in_the_file() -> None:
    registry = HookRegistry()
    one = Handler("on_message", "a", "second", "reply", _never, line=20)
    two = Handler("on_message", "a", "first", "reply", _never, line=10)
    registry.register([one, two])
    assert [it.function for it in registry.ordered("on_message")["reply"]] == ["first", "second"]


def test_before_and_after_in_a_circle_name_it_and_add_nothing() -> None:
    registry = HookRegistry()
    registry.register([handler("a", before=("b",))])
    with pytest.raises(InvalidInput, match="circle") as caught:
        registry.register([handler("b", before=("a",))])
    assert "a.on_message" in str(caught.value)
    assert "b.on_message" in str(caught.value)
    assert [one.owner for one in registry.ordered("on_message")["reply"]] == ["a"]


def test_relations_to_what_is_not_there_do_not_matter() -> None:
    assert names([handler("a", after=("nobody",)), handler("b", before=("ghost",))]) == ["a", "b"]


def test_the_reason_for_a_place_can_be_printed() -> None:
    text = handler("a", priority=3, after=("b",), place="main.py:7").why()
    assert text == "tier plugin; priority 3; after b; name a; main.py:7"


def test_a_command_declared_twice_names_both() -> None:
    registry = HookRegistry()
    registry.register([], [ChatCommand("/greet", "one", "", "", handler("one"))])
    with pytest.raises(InvalidInput, match="/greet is declared by one and by two"):
        registry.register([handler("two")], [ChatCommand("/greet", "two", "", "", handler("two"))])
    assert registry.ordered("on_message")["reply"] == ()
    registry.unregister("one")
    registry.register([], [ChatCommand("/greet", "two", "", "", handler("two"))])


# -- commands ---------------------------------------------------------------------------------------------------------


def declare(core: EventCore, name: str, owner: str, calls: list[Any], reply: Any = None) -> None:
    async def call(args: tuple[Any, ...], context: Any, *, effects: bool, timeout: float) -> Answer:
        calls.append((owner, *args))
        return Answer(reply or {"text": f"from {owner}"})

    handler = Handler("on_command", owner, "on_command", "reply", call)
    core.hooks.registry.register([], [ChatCommand(name, owner, "", "", handler)])


async def test_a_command_goes_to_the_plugin_that_declares_it(core: EventCore) -> None:
    calls: list[Any] = []
    declare(core, "/myplugin", "mine", calls)
    declare(core, "/other", "other", calls, {"text": "Unknown command"})
    core.hooks.register("on_message", answering({"text": "chatty"}), owner="chatty")
    outcome = await core.hooks.command({"text": "/myplugin  a b"})
    assert calls == [("mine", "/myplugin", ["a", "b"])]
    assert outcome.replies == [{"text": "from mine"}]  # on_message's replies are not collected
    [event] = await of_type(core, "on_command")
    assert (event.data["command"], event.data["args"]) == ("/myplugin", ["a", "b"])
    assert await of_type(core, "on_message") == []


async def test_gates_and_filters_of_messages_stand_before_commands(core: EventCore) -> None:
    calls: list[Any] = []
    declare(core, "/say", "sayer", calls)

    @filters("on_message")
    async def mask(message: Any) -> Replace:
        return Replace({**message, "text": message["text"].replace("secret", "***")})

    @gate("on_message")
    async def guard(message: Any) -> Deny | None:
        return Deny("no") if "forbidden" in message["text"] else None

    @observe("on_message")
    async def watch(message: Any) -> None:
        calls.append("observer")

    for function in (mask, guard, watch):
        core.hooks.register("on_message", function)
    assert (await core.hooks.command({"text": "/say forbidden"})).denied
    assert calls == []
    await core.hooks.command({"text": "/say my secret"})
    assert calls == [("sayer", "/say", ["my", "***"])]
    [event] = await of_type(core, "on_command")
    assert b"secret" not in event.raw


async def test_an_unknown_command_suggests_the_nearest(core: EventCore) -> None:
    declare(core, "/greet", "greeter", [])
    with pytest.raises(NotFound, match="there is no command /gret; did you mean '/greet'"):
        await core.hooks.command({"text": "/gret ada"})


@pytest.mark.parametrize("text", ["", "   ", "\n"])
async def test_a_command_of_nothing(core: EventCore, text: str) -> None:
    with pytest.raises(InvalidPayload, match="command"):
        await core.hooks.command({"text": text})
