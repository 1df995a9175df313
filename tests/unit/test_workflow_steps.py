"""Steps that ask hooks and people, and triggers that are chat commands."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from eventcore import Deny, EventCore, Replace
from eventcore.bus.current import serving
from eventcore.kernel.context import CallContext
from eventcore.kernel.errors import AccessDenied, InvalidInput, NotFound, RunFailed

pytestmark = pytest.mark.anyio


def define(core: EventCore, *steps: dict[str, Any], slug: str = "w", **more: Any) -> None:
    core.workflows.define({"slug": slug, "steps": list(steps), **more})


ASK = {"id": "h", "hook": "on_message", "with": {"text": "{{ inputs.text }}"}}


async def test_a_hook_step_gives_the_value_that_filters_made_and_the_replies(core: EventCore) -> None:
    core.hooks.register(
        "on_message", lambda message: Replace({**message, "text": message["text"].strip()}), stage="filter"
    )
    core.hooks.register("on_message", lambda message: {"heard": message["text"]}, stage="reply")
    core.hooks.register("on_message", lambda message: None, stage="reply")
    define(core, ASK, outputs="{{ steps.h.output }}")
    run = await core.workflows.start("w", {"text": "  hi "})
    assert await run.result(5) == {
        "value": {"text": "hi", "user": "anonymous", "channel": "#general"},
        "replies": [{"heard": "hi"}],
    }


async def test_a_hook_that_denies_fails_the_step_and_a_retry_may_name_that(core: EventCore) -> None:
    asked: list[str] = []

    def shut(message: dict[str, Any]) -> Any:
        asked.append(message["text"])
        return Deny("closed") if len(asked) < 3 else None

    core.hooks.register("on_message", shut, stage="gate")
    define(core, ASK)
    with pytest.raises(RunFailed, match="on_message was denied: closed") as told:
        await (await core.workflows.start("w", {"text": "a"})).result(5)
    assert told.value.details["error"]["type"] == "HookDenied"
    define(core, {**ASK, "retry": {"attempts": 5, "initial": 0.001, "only": ["HookDenied"]}})
    await (await core.workflows.start("w", {"text": "b"})).result(5)
    assert asked == ["a", "b", "b"]


async def test_a_chat_command_starts_its_workflow_and_no_other(core: EventCore) -> None:
    given = {"args": "{{ event.data.args }}", "by": "{{ event.actor }}"}
    step = {"id": "a", "emit": "done"}
    for command in ("report", "reports"):
        define(
            core,
            step,
            slug=command,
            triggers=[{"command": f"/{command}", "if": "{{ event.data.args | length < 2 }}", "with": given}],
        )
    for text in ("/report a", "/report a b"):
        await core.hooks.command({"text": text})
    with pytest.raises(NotFound, match="did you mean '/report"):
        await core.hooks.command({"text": "/repor"})
    await core.drain(5)
    [run] = await core.workflows.runs()
    assert run.slug == "report"
    assert json.loads(run.raw_inputs) == {"args": ["a"], "by": "operator"}


def somebody(name: str, *roles: str) -> CallContext:
    return CallContext(actor=f"user:{name}", roles=frozenset(roles))


async def asking(core: EventCore, *steps: dict[str, Any], count: int = 1) -> Any:
    define(core, *steps, outputs="{{ steps.ok.output }}")
    run = await core.workflows.start("w")
    with anyio.fail_after(20):
        while len(await core.workflows.verbs.approvals()) < count:
            await anyio.sleep(0.005)
    return run


async def test_only_who_has_one_of_the_roles_decides(core: EventCore) -> None:
    run = await asking(core, {"id": "ok", "approve": {"message": "Ship?", "roles": ["boss", "deputy"]}})
    for nobody in (somebody("ada", "user"), somebody("eve")):
        with serving(core.engine.bus, nobody), pytest.raises(AccessDenied, match="one of boss, deputy may"):
            await core.workflows.verbs.decide(run.id, "ok", approved=True)
    with serving(core.engine.bus, somebody("bob", "user", "deputy")):
        await core.workflows.verbs.decide(run.id, "ok", approved=True, note="fine")
    found = await run.result(5)
    assert (found["approved"], found["by"], found["note"]) == (True, "user:bob", "fine")


async def test_without_roles_the_operator_decides_and_of_several_one_is_named(core: EventCore) -> None:
    other = {"id": "too", "needs": [], "approve": "And that?"}
    run = await asking(core, {"id": "ok", "approve": "This?"}, other, count=2)
    with serving(core.engine.bus, somebody("bob", "boss")), pytest.raises(AccessDenied, match="operator may"):
        await core.workflows.verbs.decide(run.id, "ok", approved=True)
    with pytest.raises(InvalidInput, match="several steps"):
        await core.workflows.verbs.decide(run.id, None, approved=True)
    for step in ("too", "ok"):
        await core.workflows.verbs.decide(run.id, step, approved=True)
    await run.result(5)


@pytest.mark.parametrize("then", ["fail", "continue"])
async def test_an_approval_that_nobody_gives_runs_over(core: EventCore, then: str) -> None:
    step = {"id": "ok", "approve": {"message": "Ship?", "timeout": 0.05, "on_timeout": then}}
    define(core, step, outputs="{{ steps.ok.output }}")
    run = await core.workflows.start("w")
    if then == "fail":
        with pytest.raises(RunFailed, match="nothing came within"):
            await run.result(5)
    else:
        assert await run.result(5) is None
    assert await core.workflows.verbs.approvals() == []


@pytest.mark.parametrize("limit", ["timeout", "total_timeout"])
@pytest.mark.parametrize(
    "wait",
    [
        {"wait_for": {"event": "never"}},
        {"wait_for": {"signal": "never", "timeout": "1h"}},
        {"approve": "Ship it?"},
        {"approve": {"message": "Ship it?", "timeout": "1h"}},
    ],
)
async def test_a_limit_of_the_step_ends_a_wait_too(core: EventCore, wait: dict[str, Any], limit: str) -> None:
    """Whether it stands in the wait or beside it: the one that ends first counts."""
    define(core, {"id": "a", **wait, limit: "20ms"})
    with pytest.raises(RunFailed, match=r"nothing came within 0\.02 s") as caught:
        await (await core.workflows.start("w")).result(5)
    assert caught.value.details["error"]["type"] == "WaitTimeout"
    assert not await core.engine.store.listening()
