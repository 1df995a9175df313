"""Hooks of one's own: modes, records, reply models, wrappers, time limits, denied payloads kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from eventcore import EventCore
from eventcore.hooks.registry import Answer, Handler
from eventcore.hooks.specs import HOOKS, HookSpec
from eventcore.kernel.errors import HookFailed, InvalidInput, InvalidName, InvalidPayload, NotFound
from eventcore.kernel.json import encode_sorted, text_digest
from eventcore.kernel.records import Batch
from eventcore.kernel.settings import Settings
from eventcore.sdk import Deny, Stop
from tests.unit.test_hooks import answering, of_type

pytestmark = pytest.mark.anyio


class Question(BaseModel):
    item: str
    count: int = 1


class Price(BaseModel):
    cents: int


async def test_a_declared_hook_works_like_a_standard_one_and_belongs_to_its_engine(core: EventCore) -> None:
    spec = core.hooks.declare(HookSpec("on_price_asked", Question, "first", reply=Price))
    assert core.hooks.declare(spec) is spec
    core.hooks.register("on_price_asked", answering({"cents": "seven"}), owner="a")
    core.hooks.register("on_price_asked", answering({"cents": "7"}), owner="b")
    core.hooks.register("on_price_asked", answering({"cents": 9}), owner="c")
    outcome = await core.hooks.call("on_price_asked", {"item": "tea"})
    assert (outcome.replies, outcome.repliers, outcome.value) == (
        [{"cents": 7}],
        ["b.handler"],
        {"item": "tea", "count": 1},
    )
    [error] = await of_type(core, "plugin_error")
    assert (error.data["plugin"], "cents" in error.data["error"]) == ("a", True)
    assert [event.data for event in await of_type(core, "on_price_asked")] == [outcome.value]
    with pytest.raises(InvalidPayload, match="on_price_asked: item"):
        await core.hooks.call("on_price_asked", {})
    async with EventCore() as other:
        with pytest.raises(NotFound, match="on_price_asked"):
            await other.hooks.call("on_price_asked", {"item": "tea"})
    assert "on_price_asked" not in HOOKS


@pytest.mark.parametrize("name", ["price", "on_", "on_Price", "on_workflow_started", "on_" + "x" * 200])
async def test_names_that_no_hook_can_have(core: EventCore, name: str) -> None:
    with pytest.raises(InvalidName):
        core.hooks.declare(HookSpec(name))


@pytest.mark.parametrize(
    "spec",
    [
        HookSpec("on_message"),
        HookSpec("on_taken", timeout=1),
        HookSpec("on_x", mode="all"),  # type: ignore[arg-type]
        HookSpec("on_x", record="maybe"),  # type: ignore[arg-type]
        HookSpec("on_x", on_error="retry"),  # type: ignore[arg-type]
        HookSpec("on_x", timeout=0),
        HookSpec("on_x", payload=dict),  # type: ignore[arg-type]
    ],
)
async def test_specs_that_make_no_sense(core: EventCore, spec: HookSpec) -> None:
    core.hooks.declare(HookSpec("on_taken"))
    with pytest.raises(InvalidInput):
        core.hooks.declare(spec)


async def everything(core: EventCore) -> list[str]:
    return [event.type async for event in core.history.query() if event.type != "system_started"]


@pytest.mark.parametrize(("record", "passed", "denied"), [("never", [], []), ("denied", [], ["hook_completed"])])
async def test_what_is_not_recorded_leaves_nothing(
    core: EventCore, record: Any, passed: list[str], denied: list[str]
) -> None:
    core.hooks.declare(HookSpec("on_price_asked", record=record))
    core.hooks.register("on_price_asked", answering({"cents": 1}))

    async def no(payload: Any) -> Deny | None:
        return Deny("no") if payload.get("item") == "gold" else None

    core.hooks.register("on_price_asked", no, stage="gate")
    outcome = await core.hooks.call("on_price_asked", {"item": "tea"})
    assert (outcome.event, outcome.replies, outcome.value) == (None, [{"cents": 1}], {"item": "tea"})
    assert await everything(core) == passed
    assert (await core.hooks.call("on_price_asked", {"item": "gold"})).denied
    assert await everything(core) == denied
    core.hooks.register("on_price_asked", answering("wrong"), owner="bad")
    await core.hooks.call("on_price_asked", {"item": "tea"})
    assert await everything(core) == [*denied, "plugin_error"]  # a failure is always told


async def test_on_error_of_a_spec(core: EventCore) -> None:
    async def fails(payload: Any) -> None:
        raise ValueError("bug")

    for rule in ("skip", "deny", "raise"):
        core.hooks.declare(HookSpec(f"on_{rule}", on_error=rule))  # type: ignore[arg-type]
        core.hooks.register(f"on_{rule}", fails, stage="filter", owner="f")
    assert not (await core.hooks.call("on_skip", {})).denied
    assert (await core.hooks.call("on_deny", {})).denied
    with pytest.raises(HookFailed, match=r"f\.fails failed in on_raise: ValueError: bug"):
        await core.hooks.call("on_raise", {})
    assert await of_type(core, "on_raise") == []
    ends = [event.data for event in await of_type(core, "hook_completed")]
    assert [(end["hook"], end["denied"], end.get("failed")) for end in ends] == [
        ("on_skip", False, None),
        ("on_deny", True, None),
        ("on_raise", False, True),
    ]
    assert len(await of_type(core, "plugin_error")) == 3


# -- wrappers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def wrapping(core: EventCore) -> list[str]:
    """A hook `on_work` of the mode wrap with two wrappers, and what they note."""
    notes: list[str] = []
    core.hooks.declare(HookSpec("on_work", mode="wrap"))

    def wrapper(name: str) -> Any:
        async def wrap(payload: Any) -> AsyncIterator[None]:
            notes.append(f"{name} in {payload['n']}")
            try:
                call = yield
                notes.append(f"{name} out {call.reply}")
                if call.reply is not None:
                    call.reply = {**call.reply, name: True}
            except LookupError:
                notes.append(f"{name} saw")

        return wrap

    core.hooks.register("on_work", wrapper("outer"), owner="a")
    core.hooks.register("on_work", wrapper("inner"), owner="b")
    return notes


async def test_wrappers_run_around_the_reply_and_may_change_it(core: EventCore, wrapping: list[str]) -> None:
    async def work(payload: Any) -> Any:
        return {"done": payload["n"]}

    outcome = await core.hooks.call("on_work", {"n": 1}, inner=work)
    assert outcome.replies == [{"done": 1, "inner": True, "outer": True}]
    assert wrapping == ["outer in 1", "inner in 1", "inner out {'done': 1}", "outer out {'done': 1, 'inner': True}"]
    core.hooks.register("on_work", answering({"cached": 1}), owner="c")
    assert (await core.hooks.call("on_work", {"n": 2}, inner=work)).replies == [
        {"cached": 1, "inner": True, "outer": True}
    ]


async def test_an_error_inside_reaches_the_wrappers_and_the_caller(core: EventCore, wrapping: list[str]) -> None:
    async def work(payload: Any) -> Any:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        await core.hooks.call("on_work", {"n": 1}, inner=work)
    assert wrapping[2:] == ["inner saw", "outer saw"]
    assert [event.data["denied"] for event in await of_type(core, "hook_completed")] == [False]


async def test_wrappers_that_fail_are_left_out(core: EventCore) -> None:
    core.hooks.declare(HookSpec("on_work", mode="wrap"))

    async def early(payload: Any) -> AsyncIterator[None]:
        raise ValueError("early")
        yield

    async def none(payload: Any) -> AsyncIterator[None]:
        if payload is None:
            yield

    async def twice(payload: Any) -> AsyncIterator[None]:
        yield
        yield

    async def spoils(payload: Any) -> AsyncIterator[None]:
        call = yield
        call.reply = "text"

    for number, wrapper in enumerate((early, none, twice, spoils)):
        core.hooks.register("on_work", wrapper, owner=f"w{number}")
    core.hooks.register("on_work", answering({"ok": 1}), owner="reply")
    outcome = await core.hooks.call("on_work", {})
    assert outcome.replies == [{"ok": 1}]
    bad = {(one.handler.partition(".")[2], one.status) for one in outcome.trace if one.error}
    assert bad == {("early", "error"), ("none", "error"), ("twice", "error"), ("spoils", "error")}


async def test_a_wrapper_that_hangs_is_left_out(core: EventCore) -> None:
    """Alone with a reply that cannot wait: what has a limit as short as this one is to run into it."""
    core.hooks.declare(HookSpec("on_work", mode="wrap", timeout=0.05))

    async def hangs(payload: Any) -> AsyncIterator[None]:
        yield
        await anyio.sleep_forever()

    core.hooks.register("on_work", hangs, owner="w")
    core.hooks.register("on_work", answering({"ok": 1}), owner="reply")
    outcome = await core.hooks.call("on_work", {})
    assert outcome.replies == [{"ok": 1}]
    assert [(one.handler, one.status) for one in outcome.trace if one.error] == [("w.hangs", "timeout")]


async def test_only_wrap_hooks_have_wrappers_and_inner_work(core: EventCore) -> None:
    async def wrapper(payload: Any) -> AsyncIterator[None]:
        yield

    with pytest.raises(InvalidInput, match="mode wrap"):
        core.hooks.register("on_message", wrapper)
    with pytest.raises(InvalidInput, match="mode wrap"):
        await core.hooks.call("on_message", {"text": "x"}, inner=answering(None))


# -- settings ---------------------------------------------------------------------------------------------------------


async def test_the_operators_time_limits_go_before_the_specs(anyio_backend: Any) -> None:
    async def hangs(payload: Any) -> None:
        await anyio.sleep_forever()

    hooks = {"timeouts": {"on_message": 0.05, "on_mine": 0.04}, "budgets": {"on_mine": 0.06}}
    own = HookSpec("on_mine", timeout=100, budget=100)
    async with EventCore(settings=Settings.model_validate({"hooks": hooks}), hooks=[own]) as core:
        for hook in ("on_message", "on_mine"):
            for owner in ("a", "b", "c"):
                core.hooks.register(hook, hangs, owner=owner)
        with anyio.fail_after(60):
            first = await core.hooks.call("on_message", {"text": "x"})
            second = await core.hooks.call("on_mine", {})
    assert [one.error for one in first.trace] == ["ran over its 0.05 s"] * 3
    statuses = [one.status for one in second.trace]
    assert (statuses[0], statuses[2]) == ("timeout", "skipped")  # the one between has what is left, which may be none
    assert "0.04 s" in (second.trace[0].error or "")
    assert "0.06 s" in (second.trace[2].error or "")


async def test_a_limit_does_not_hit_the_next_handler(core: EventCore) -> None:
    # Two of them together take longer than the limit of one, and each alone has 0.8 s to spare on a busy machine.
    core.hooks.declare(HookSpec("on_mine", timeout=2, budget=60, record="never"))

    async def waits(payload: Any) -> dict[str, Any]:
        with anyio.move_on_after(1.2):  # a scope of its own, inside of ours
            await anyio.sleep_forever()
        return {"ok": 1}

    async def goes_on(payload: Any) -> dict[str, Any]:
        await anyio.sleep(0.05)
        return {"ok": 1}

    async def swallows(payload: Any) -> dict[str, Any]:
        try:
            await anyio.sleep_forever()
        except BaseException:
            raise ValueError("instead") from None

    for owner, handler in {"a": waits, "b": waits, "c": swallows, "d": goes_on}.items():
        core.hooks.register("on_mine", handler, owner=owner)
    outcome = await core.hooks.call("on_mine", {})
    assert [one.status for one in outcome.trace] == ["ok", "ok", "error", "ok"]


async def test_cancelling_the_caller_is_not_taken_for_a_timeout(core: EventCore) -> None:
    async def hangs(payload: Any) -> None:
        await anyio.sleep_forever()

    core.hooks.register("on_message", hangs)
    with anyio.move_on_after(0.05) as scope:
        await core.hooks.call("on_message", {"text": "x"})
        pytest.fail("it went on")
    assert scope.cancelled_caught
    await anyio.sleep(0)


@pytest.mark.parametrize("keep", [False, True])
async def test_denied_payloads_are_kept_only_if_the_operator_says_so(anyio_backend: Any, keep: bool) -> None:
    settings = Settings.model_validate({"hooks": {"keep_denied_payloads": keep}})
    async with EventCore(settings=settings) as core:
        core.hooks.register("on_message", answering(Deny("no")), stage="gate")
        await core.hooks.call("on_message", {"text": "hunter2"})
        [end] = await of_type(core, "hook_completed")
    payload = {"text": "hunter2", "user": "anonymous", "channel": "#general"}
    assert end.data["payload_sha256"] == text_digest(encode_sorted(payload).decode())
    assert end.data.get("payload") == (payload if keep else None)


async def test_stop_in_a_declared_hook(core: EventCore) -> None:
    core.hooks.declare(HookSpec("on_mine"))
    core.hooks.register("on_mine", answering(Stop({"n": 1})), owner="a")
    core.hooks.register("on_mine", answering({"n": 2}), owner="b")
    assert (await core.hooks.call("on_mine", {})).replies == [{"n": 1}]


async def test_what_a_refused_answer_wanted_to_change_is_dropped(core: EventCore) -> None:
    """Effects belong to the answer they came with: one that is refused takes them along."""
    staged = core.bus.build("staged", {}, core.bus.context())

    async def call(args: Any, context: Any, *, effects: bool, timeout: float) -> Answer:
        return Answer("no object", Batch(log=[staged]))

    core.hooks.registry.register([Handler("on_message", "a", "on_message", "reply", call)])
    core.hooks.register("on_message", answering({"ok": 1}), owner="b")
    outcome = await core.hooks.call("on_message", {"text": "x"})
    assert [one.status for one in outcome.trace] == ["error", "ok"]
    assert await of_type(core, "staged") == []
