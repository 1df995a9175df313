"""The plugin host: states, calls, what plugin code may ask of the host, chaining. Real workers throughout."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import caller
from eventcore.kernel.errors import (
    AccessDenied,
    InvalidInput,
    InvalidPayload,
    LoopDetected,
    PluginFailed,
    PluginTimeout,
    UnknownIntent,
)
from eventcore.kernel.event import Event
from eventcore.plugins.registry import PluginRecord

pytestmark = pytest.mark.anyio

ALL = ["plugin_communication", "memory_read", "memory_write", "chat_access"]


async def of_type(core: EventCore, pattern: str, **more: Any) -> list[Event]:
    return [event async for event in core.history.query(type=pattern, **more)]


async def until(core: EventCore, pattern: str, count: int = 1) -> list[Event]:
    while len(found := await of_type(core, pattern)) < count:
        await anyio.sleep(0.01)
    return found


def write(folder: Path, code: str, **manifest: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    body = {
        "name": folder.name,
        "version": "1.0.0",
        "module": "handler",
        "plugin_api_version": "1.0",
        "intent": folder.name.replace("-", "_"),
        **manifest,
    }
    (folder / "plugin_manifest.json").write_text(json.dumps(body))
    (folder / "handler.py").write_text(textwrap.dedent(code))
    return folder


@pytest.fixture
def plant(core: EventCore, tmp_path: Path) -> Any:
    """Writes a plugin and lets the engine discover and enable it, with what it asks for."""

    async def make(name: str, code: str, *, enable: bool = True, **manifest: Any) -> PluginRecord:
        folder = write(tmp_path / name, code, **manifest)
        core.plugins.registry.discover(folder, folder / "plugin_manifest.json", None, "home", None)
        record = core.plugins.get(name)
        assert record.manifest is not None, record.problems
        return await core.plugins.enable(name, grants=manifest.get("permissions", ())) if enable else record

    return make


# -- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite
async def test_states_survive_a_restart(tmp_path: Path, anyio_backend: str) -> None:
    (tmp_path / "eventcore.toml").write_text("")
    for name in ("first", "second"):
        write(tmp_path / "plugins" / name, "def run(params):\n    return {}\ndef on_startup(x): ...")
    async with EventCore(tmp_path) as core:
        assert [record.state for record in core.plugins.list() if record.origin == "home"] == ["discovered"] * 2
        await core.plugins.enable("first", context=caller("user:op", ["admin"]))
        await core.plugins.enable("second")
        await core.plugins.disable("second")
    async with EventCore(tmp_path) as core:
        assert [record.state for record in core.plugins.list() if record.origin == "home"] == ["enabled", "disabled"]
        assert core.plugins.get("first").since > 0
        assert await core.plugins.run("first") == {}
        with pytest.raises(UnknownIntent, match="second answers 'second' but is disabled"):
            await core.plugins.run("second")
        events = [(event.type, event.data["plugin"], event.actor) for event in await of_type(core, "plugin_*abled")]
        assert events == [
            ("plugin_enabled", "first", "user:op"),
            ("plugin_enabled", "second", "operator"),
            ("plugin_disabled", "second", "operator"),
        ]
        assert [event.data["version"] for event in await of_type(core, "plugin_loaded")] == ["1.0.0"] * 2
        audit = [(row.action, row.target, row.actor) for row in await core.engine.store.audit()]
        assert sorted(audit) == sorted(events)
    write(tmp_path / "plugins" / "first", "raise RuntimeError('broken since')")
    async with EventCore(tmp_path) as core:  # other code: loaded again, and its failure keeps nobody out
        record = core.plugins.get("first")
        assert (record.state, "broken since" in (record.reason or "")) == ("failed", True)
        with pytest.raises(UnknownIntent):
            await core.plugins.run("first")


async def test_a_missing_grant_is_refused_with_a_hint(core: EventCore, plant: Any) -> None:
    await plant("needy", "def run(params): return {}", enable=False, permissions=["memory_read", "chat_access"])
    with pytest.raises(InvalidInput, match="needy needs chat_access, which it was not granted") as caught:
        await core.plugins.enable("needy", grants=["memory_read"])
    assert caught.value.hint == "eventcore plugins enable needy --grant chat_access"
    assert core.plugins.get("needy").state == "discovered"
    with pytest.raises(UnknownIntent):
        await core.plugins.run("needy")
    with pytest.raises(InvalidInput, match="'memory_rea' is no permission; did you mean 'memory_read'"):
        await core.plugins.enable("needy", grants=["memory_rea"])
    record = await core.plugins.enable("needy", grants=["memory_read", "chat_access", "admin_access"])
    assert {str(one) for one in record.granted} == {"memory_read", "chat_access"}  # never more than it asks for


async def test_code_that_does_not_load(core: EventCore, plant: Any) -> None:
    with pytest.raises(PluginFailed, match="boom"):
        await plant("broken", "raise RuntimeError('boom')")
    record = core.plugins.get("broken")
    assert (record.state, "boom" in (record.reason or "")) == ("failed", True)
    [failed] = await of_type(core, "plugin_failed")
    assert failed.data["plugin"] == "broken"
    write(record.path, "def run(params): return {'ok': 1}")
    await core.plugins.enable("broken")
    assert await core.plugins.run("broken") == {"ok": 1}


async def test_a_class_that_cannot_start_leaves_nothing_registered(core: EventCore, plant: Any, tmp_path: Path) -> None:
    code = """
        from pathlib import Path
        class P:
            def initialize(self): return False
            def execute(self, params): return {}
        def on_file_upload(info): return {"x": 1}
        def on_order(event): ...
    """
    with pytest.raises(PluginFailed):
        await plant("sulky", code, **{"class": "P"})
    assert core.plugins.get("sulky").state == "failed"
    assert core.hooks.registry.hooks() == []
    assert core.bus.subscriptions() == []
    with pytest.raises(UnknownIntent):
        await core.plugins.run("sulky")


async def test_enabling_twice_at_once_registers_once(core: EventCore, plant: Any) -> None:
    code = "def run(params): return {}\ndef on_order(event): return 1\ndef on_file_upload(info): return {'n': 1}"
    await plant("eager", code, enable=False)
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(core.plugins.enable, "eager")
    assert len(await of_type(core, "plugin_enabled")) == 1
    assert len(await core.bus.emit_and_wait("order")) == 1
    assert (await core.hooks.call("on_file_upload", {"name": "a", "size": 1})).replies == [{"n": 1}]


async def test_the_catalogue_is_enabled_on_demand_once(core: EventCore) -> None:
    results: list[Any] = []

    async def hello() -> None:
        results.append(await core.plugins.run("hello_world", {"name": "Ada"}, roles=["user"]))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(hello)
    assert len(results) == 4
    assert len(await of_type(core, "plugin_enabled")) == 1


async def test_disabling_takes_everything_away(core: EventCore, plant: Any) -> None:
    code = "def run(params): return {}\ndef on_order(event): return 1\ndef on_file_upload(info): return {'n': 1}"
    await plant("gone", code)
    assert len(await core.bus.emit_and_wait("order")) == 1
    await core.plugins.disable("gone")
    assert len(await core.bus.emit_and_wait("order")) == 0
    assert (await core.hooks.call("on_file_upload", {"name": "a", "size": 1})).replies == []
    with pytest.raises(UnknownIntent, match="gone answers 'gone' but is disabled"):
        await core.plugins.run("gone")
    write(core.plugins.get("gone").path, "def run(params): return {'new': 1}")
    await core.plugins.enable("gone")
    assert await core.plugins.run("gone") == {"new": 1}
    assert len(await core.bus.emit_and_wait("order")) == 0  # what the old code registered is not registered again


async def test_two_plugins_with_one_intent_or_command(core: EventCore, plant: Any) -> None:
    command = [{"name": "/go", "description": "d", "usage": "/go"}]
    code = "def run(params): return {}\ndef on_command(command, args): return {'args': args}"
    await plant("one", code, intent="same", commands=command)
    with pytest.raises(InvalidInput, match="'same' is answered by one and by two"):
        await plant("two", code, intent="same")
    with pytest.raises(InvalidInput, match="/go is declared by one and by three"):
        await plant("three", code, commands=command)
    with pytest.raises(UnknownIntent):
        await core.plugins.run("three")
    assert (await core.hooks.command({"text": "/go a b"})).replies == [{"args": ["a", "b"]}]


# -- calls ------------------------------------------------------------------------------------------------------------


async def test_a_call_is_recorded_and_carries_its_metadata(core: EventCore, plant: Any) -> None:
    await plant("echo", "def run(params):\n    print('hello')\n    return params")
    result = await core.plugins.run("echo", {"a": [1]}, user="ada", roles=["user"])
    [called] = await of_type(core, "plugin_called")
    assert result["a"] == [1]
    assert result["metadata"] == {
        "call_id": called.id,
        "idempotency_key": called.id,
        "run": None,
        "step": None,
        "attempt": 1,
        "tenant": "default",
        "intent": "echo",
    }
    assert result["user_context"] == {"user_id": "user:ada", "roles": ["user"], "tenant": "default"}
    assert (called.actor, called.data["params"], called.data["status"]) == ("user:ada", {"a": [1]}, "ok")
    assert await core.plugins.run_plugin("echo", {}, {"user_id": "x", "roles": []}) != ()


async def test_roles(core: EventCore, plant: Any) -> None:
    await plant("guarded", "def run(params): return {}", required_roles=["admin", "developer"])
    for roles in ([], ["user"], ["Admin"]):
        with pytest.raises(AccessDenied, match="admin, developer"):
            await core.plugins.run("guarded", user="eve", roles=roles)
    denied = await of_type(core, "permission_denied")
    assert [(one.actor, one.data["intent"], one.data["roles"]) for one in denied] == [
        ("user:eve", "guarded", []),
        ("user:eve", "guarded", ["user"]),
        ("user:eve", "guarded", ["Admin"]),
    ]
    assert await of_type(core, "plugin_called") == []
    assert await core.plugins.run("guarded", roles=["developer"]) == {}


async def test_failures_are_recorded(core: EventCore, plant: Any) -> None:
    await plant("bad", "def run(params):\n    raise KeyError('lost')")
    with pytest.raises(PluginFailed, match="lost") as caught:
        await core.plugins.run("bad")
    assert caught.value.kind == "KeyError"
    [error] = await of_type(core, "plugin_error")
    assert (error.data["plugin"], error.data["type"]) == ("bad", "KeyError")
    assert "handler.py" in error.data["trace"]
    with pytest.raises(UnknownIntent, match="nobody answers the intent 'badd'; did you mean 'bad'"):
        await core.plugins.run("badd")


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda params: {"x": object()}, "InvalidPayload"),
        (lambda params: float("nan"), "InvalidPayload"),
        (lambda params: 1 / 0, "ZeroDivisionError"),
        (lambda params: _raise(ValueError("\ud800")), "ValueError"),
        (lambda params: _raise(TimeoutError("of its own")), "TimeoutError"),
    ],
)
async def test_failures_of_the_embedders_own_functions(core: EventCore, function: Any, kind: str) -> None:
    core.plugins.intent("mine", function)
    with pytest.raises(PluginFailed) as caught:
        await core.plugins.run("mine")
    assert (caught.value.kind, isinstance(caught.value, PluginTimeout)) == (kind, False)
    [error] = await of_type(core, "plugin_error")
    assert (error.data["plugin"], error.data["type"]) == ("host", kind)
    assert await of_type(core, "plugin_called") == []


def _raise(error: Exception) -> None:
    raise error


async def test_a_limit_on_the_embedders_own_function(core: EventCore) -> None:
    async def hangs(params: Any) -> None:
        await anyio.sleep_forever()

    core.plugins.intent("mine", hangs)
    with pytest.raises(PluginTimeout, match=r"0\.02 s"):
        await core.plugins.run("mine", timeout=0.02)


async def test_parameters_that_are_no_json_are_refused_before_anything_runs(core: EventCore) -> None:
    calls: list[Any] = []
    core.plugins.intent("mine", calls.append)
    with pytest.raises(InvalidPayload, match="the parameters of mine is not JSON"):
        await core.plugins.run("mine", {"x": object()})
    assert calls == []


async def test_intents_that_call_each_other_in_a_circle_are_stopped(core: EventCore, plant: Any) -> None:
    code = """
        from eventcore.sdk import ctx
        async def run(params):
            return await ctx.request("{other}", {{"n": params.get("n", 0) + 1}})
    """
    for name, other in (("left", "right"), ("right", "left")):
        await plant(name, code.format(other=other), permissions=["plugin_communication"])
    with anyio.fail_after(60), pytest.raises(PluginFailed):
        await core.plugins.run("left")
    [notice] = await of_type(core, "bus_loop_detected")
    assert notice.data["members"] == ["intent:left", "intent:right"]


# -- what plugin code may ask of the host -----------------------------------------------------------------------------

EMITS = """
    from eventcore.sdk import ctx
    async def run(params):
        await ctx.emit(params["type"], params.get("data"), now=params.get("now", False))
        if params.get("fail"):
            raise ValueError("after the emit")
        return {}
"""


async def test_emit_needs_its_permission(core: EventCore, plant: Any) -> None:
    await plant("quiet", EMITS, events={"emits": ["data_processed"]})
    with pytest.raises(PluginFailed, match="plugin_communication"):
        await core.plugins.run("quiet", {"type": "data_processed"}, user="ada")
    [denied] = await of_type(core, "permission_denied")
    assert (denied.data["plugin"], denied.data["permission"]) == ("quiet", "plugin_communication")
    assert (denied.actor, denied.run) == ("plugin:quiet", None)
    assert await of_type(core, "data_processed") == []


@pytest.mark.req("A3")
async def test_what_a_plugin_may_emit(core: EventCore, plant: Any) -> None:
    from pydantic import BaseModel

    class Rows(BaseModel):
        rows: int

    core.bus.declare("data_processed", model=Rows)
    await plant("talker", EMITS, events={"emits": ["data_processed"]}, permissions=["plugin_communication"])
    for name in ("data_processed", "talker.anything"):
        await core.plugins.run("talker", {"type": name, "data": {"rows": 3}})
        [event] = await of_type(core, name)
        assert (event.data, event.source, event.actor) == ({"rows": 3}, "/plugins/talker", "plugin:talker")
    [call, _] = await of_type(core, "plugin_called")
    assert (await of_type(core, "data_processed"))[0].causation_id == call.id
    for name in ("unlisted", "workflow_started", "workflow.started", "on_message", "other.thing", "system_stopped"):
        with pytest.raises(PluginFailed, match="may not emit"):
            await core.plugins.run("talker", {"type": name})
    assert len(await of_type(core, "permission_denied")) == 6
    with pytest.raises(PluginFailed, match="data_processed: rows"):
        await core.plugins.run("talker", {"type": "data_processed", "data": {"rows": "many"}})
    with pytest.raises(PluginFailed, match="is not an event type"):
        await core.plugins.run("talker", {"type": "Not A Type"})
    assert len(await of_type(core, "data_processed")) == 1


async def test_staged_effects_are_dropped_on_error_and_immediate_ones_stay(core: EventCore, plant: Any) -> None:
    await plant("talker", EMITS, permissions=["plugin_communication"])
    with pytest.raises(PluginFailed, match="after the emit"):
        await core.plugins.run("talker", {"type": "talker.staged", "fail": True})
    with pytest.raises(PluginFailed, match="after the emit"):
        await core.plugins.run("talker", {"type": "talker.at_once", "fail": True, "now": True})
    assert (len(await of_type(core, "talker.staged")), len(await of_type(core, "talker.at_once"))) == (0, 1)


async def test_transient_types_are_not_recorded_for_plugins_either(core: EventCore, plant: Any) -> None:
    core.bus.declare("talker.tick", transient=True)
    got: list[str] = []
    core.bus.subscribe("talker.*", lambda event: got.append(event.type))
    await plant("talker", EMITS, permissions=["plugin_communication"])
    await core.plugins.run("talker", {"type": "talker.tick"})
    await core.drain()
    assert (got, await of_type(core, "talker.tick")) == (["talker.tick"], [])


@pytest.mark.req("A14")
async def test_two_plugins_that_answer_each_other_are_stopped(core: EventCore, plant: Any) -> None:
    code = """
        from eventcore.sdk import ctx
        async def on_{hears}(event):
            await ctx.emit("{says}", {{}})
    """
    for name, hears, says in (("left", "ping", "pong"), ("right", "pong", "ping")):
        await plant(
            name,
            code.format(hears=hears, says=says),
            events={"emits": [says]},
            permissions=["plugin_communication"],
        )
    await core.bus.emit("ping")
    with anyio.fail_after(60):
        [notice] = await until(core, "bus_loop_detected")
        await core.drain()
    assert notice.data["members"] == ["left.on_ping", "right.on_pong"]
    assert len(await of_type(core, "p*ng")) < 10


MEMORY = """
    from eventcore.sdk import ctx
    async def run(params):
        if "write" in params:
            await ctx.memory.write(params["write"], {"of": params["write"]})
        if params.get("fail"):
            raise ValueError("no")
        if "read" in params:
            return {"found": [row["result"]["of"] for row in await ctx.memory.read(params["read"])]}
        return {}
"""


async def test_memory(core: EventCore, plant: Any) -> None:
    await plant("mind", MEMORY, permissions=["memory_read", "memory_write"])
    assert await core.plugins.run("mind", {"write": "weather one", "read": "weather"}) == {"found": ["weather one"]}
    await core.plugins.run("mind", {"write": "weather two"})
    with pytest.raises(PluginFailed):
        await core.plugins.run("mind", {"write": "weather three", "fail": True})
    assert await core.plugins.run("mind", {"read": "weather"}) == {"found": ["weather two", "weather one"]}
    theirs = caller("user:a", ["user"], tenant="acme")
    assert await core.plugins.run("mind", {"read": "weather"}, context=theirs) == {"found": []}
    await core.plugins.run("mind", {"write": "weather acme"}, context=theirs)
    assert await core.plugins.run("mind", {"read": "acme"}) == {"found": []}


@pytest.mark.parametrize(("granted", "params"), [("memory_read", {"write": "x"}), ("memory_write", {"read": "x"})])
async def test_memory_needs_its_permissions(core: EventCore, plant: Any, granted: str, params: Any) -> None:
    await plant("mind", MEMORY, permissions=[granted])
    with pytest.raises(PluginFailed, match="was not granted memory_"):
        await core.plugins.run("mind", params)
    assert len(await of_type(core, "permission_denied")) == 1
    assert await core.engine.store.memories("default", "") == []


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("memory.read", {"query": "x", "limit": "many"}),
        ("request", {"intent": "mine", "timeout": "soon"}),
        ("request", {"intent": "mine", "params": [1]}),
        ("workflows.start", {"slug": "w", "inputs": [1]}),
        ("no.such.service", {}),
        ("emit", {}),
    ],
)
async def test_odd_requests_get_a_clear_answer(core: EventCore, plant: Any, method: str, params: Any) -> None:
    code = """
        from eventcore.sdk import ctx
        async def run(params):
            try:
                await ctx.ask(params["method"], **params["params"])
            except Exception as error:
                return {"code": error.code, "text": str(error)}
    """
    core.plugins.intent("mine", lambda params: {})
    core.workflows.define({"slug": "w", "steps": [{"id": "a", "emit": "x"}]})
    await plant("odd", code, permissions=ALL, enable_external_workflow=True, workflow_slug="odd-w")
    core.workflows.define({"slug": "odd-w", "steps": [{"id": "a", "emit": "x"}]})
    answer = await core.plugins.run("odd", {"method": method, "params": params})
    assert answer["code"] in ("invalid_input", "invalid_name"), answer
    assert len(answer["text"]) > 10


async def test_gates_and_filters_only_look(core: EventCore, plant: Any) -> None:
    code = """
        from eventcore.sdk import ctx, gate, filter, Replace
        TRIES = (lambda: ctx.emit("sneaky.x"), lambda: ctx.memory.write("q", 1), lambda: ctx.workflows.start("w"),
                 lambda: ctx.request("mine"), lambda: ctx.emit("sneaky.x", now=True))
        async def attempt():
            refused = []
            for one in TRIES:
                try:
                    await one()
                except Exception as error:
                    refused.append(error.code)
            return refused
        @gate("on_message")
        async def look(message):
            assert await attempt() == ["permission_denied"] * 5
            assert isinstance(await ctx.memory.read("x"), list)
        @filter("on_message")
        async def change(message):
            return Replace({**message, "text": " ".join(await attempt())})
    """
    core.plugins.intent("mine", lambda params: {})
    core.workflows.define({"slug": "w", "steps": [{"id": "a", "emit": "x"}]})
    await plant("sneaky", code, permissions=ALL, enable_external_workflow=True, workflow_slug="w")
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    assert [one.status for one in outcome.trace] == ["ok", "replaced"], outcome.trace
    assert outcome.value is not None
    assert outcome.value["text"] == " ".join(["permission_denied"] * 5)
    assert await of_type(core, "sneaky.x") == []
    assert await core.workflows.runs() == []


async def test_a_reply_may_act_and_its_effects_follow_the_message(core: EventCore, plant: Any) -> None:
    code = """
        from eventcore.sdk import ctx
        async def on_message(message):
            await ctx.emit("replier.seen", {"text": message["text"]})
            if message["text"] == "fail":
                raise ValueError("no")
            return {"text": "ok"}
    """
    await plant("replier", code, permissions=["chat_access", "plugin_communication"])
    outcome = await core.hooks.call("on_message", {"text": "hi"})
    await core.hooks.call("on_message", {"text": "fail"})
    assert outcome.event is not None
    [seen] = await of_type(core, "replier.seen")
    assert (seen.causation_id, seen.hops, seen.data) == (outcome.event.id, 1, {"text": "hi"})


async def test_chat_is_read_only_with_its_permission(core: EventCore, plant: Any) -> None:
    code = "def on_message(message): return {'text': 'heard'}\ndef on_workflow_started(event): return 1\n"
    await plant("deaf", code)
    assert (await core.hooks.call("on_message", {"text": "hi"})).replies == []


async def test_events_of_other_plugins_need_the_permission(core: EventCore, plant: Any) -> None:
    await plant("talker", EMITS, events={"emits": ["news"]}, permissions=["plugin_communication"])
    listen = "import eventcore.sdk\ndef on_news(event): return 'heard'\n"
    await plant("may", listen, permissions=["plugin_communication"])
    await plant("may-not", listen)
    await core.plugins.run("talker", {"type": "news"})
    await core.drain()
    report = await core.bus.emit_and_wait("news", source="/plugins/talker")
    assert [one.subscription for one in report] == ["may.on_news"]


# -- workflows --------------------------------------------------------------------------------------------------------

TASKS = """
slug: task_scheduling_workflow
steps:
  - id: note
    emit: task_noted
    with: {task: "{{ inputs.task }}"}
outputs: "{{ inputs.task }}"
"""


@pytest.mark.req("H7")
async def test_a_call_that_succeeds_starts_the_plugins_workflow(core: EventCore, plant: Any) -> None:
    core.workflows.define(TASKS)
    code = """
        def run(params):
            if params.get("fail"):
                return {"success": False, "error": "no_time"}
            if params.get("raise"):
                raise ValueError("no")
            return {"task": params["task"]}
    """
    await plant(
        "scheduler",
        code,
        intent="schedule_task",
        enable_external_workflow=True,
        workflow_slug="task_scheduling_workflow",
    )
    await core.plugins.run("schedule_task", {"task": "sweep"}, user="ada", roles=["user"])
    [run] = await core.workflows.runs()
    [call] = await of_type(core, "plugin_called")
    assert (run.causation_id, run.actor, run.roles) == (call.id, "user:ada", ("user",))
    assert await (await core.workflows.run(run.id)).result(5) == "sweep"
    [started] = await of_type(core, "workflow_started")
    assert (started.position, started.data["inputs"]) == (call.position + 1, {"task": "sweep"})  # one commit

    assert (await core.plugins.run("schedule_task", {"fail": True}))["success"] is False
    with pytest.raises(PluginFailed):
        await core.plugins.run("schedule_task", {"raise": True})
    assert len(await core.workflows.runs()) == 1
    assert [event.data["status"] for event in await of_type(core, "plugin_called")] == ["ok", "failed"]

    # A workflow that calls the plugin which starts it: refused after a few turns.
    core.workflows.define(
        {
            "slug": "task_scheduling_workflow",
            "steps": [{"id": "again", "plugin": "schedule_task", "with": {"task": "x"}}],
        }
    )
    await core.plugins.run("schedule_task", {"task": "round"})
    await core.drain()
    refused = await of_type(core, "trigger_failed")
    assert [event.data["code"] for event in refused] == ["loop_detected"]
    assert len(await core.workflows.runs()) < 8


async def test_a_chain_to_a_workflow_that_is_not_there_is_recorded(core: EventCore, plant: Any) -> None:
    await plant("chainer", "def run(params): return {}", enable_external_workflow=True, workflow_slug="nowhere")
    assert await core.plugins.run("chainer") == {}
    [failed] = await of_type(core, "trigger_failed")
    assert (failed.data["slug"], failed.data["plugin"], failed.data["code"]) == (
        "nowhere",
        "chainer",
        "unknown_workflow",
    )
    assert "searched" in failed.data["hint"]
    assert await core.workflows.runs() == []


async def test_a_slug_without_the_flag_chains_nothing(core: EventCore, plant: Any) -> None:
    core.workflows.define(TASKS)
    await plant("modest", "def run(params): return {'task': 1}", workflow_slug="task_scheduling_workflow")
    await core.plugins.run("modest")
    assert await core.workflows.runs() == []
    assert await of_type(core, "trigger_failed") == []


async def test_a_step_chains_too(core: EventCore, plant: Any) -> None:
    core.workflows.define(TASKS)
    await plant(
        "chainer",
        "def run(params): return {'task': 'swept'}",
        enable_external_workflow=True,
        workflow_slug="task_scheduling_workflow",
    )
    core.workflows.define({"slug": "outer", "steps": [{"id": "a", "plugin": "chainer"}]})
    outer = await core.workflows.start("outer")
    await outer.result(5)
    await core.drain()
    [inner] = await core.workflows.runs(slug="task_scheduling_workflow")
    assert (inner.status, inner.parent) == ("completed", outer.id)


STARTS = """
    from eventcore.sdk import ctx
    async def run(params):
        started = await ctx.workflows.start("autonomous_task_followup", {"task": "follow up"})
        if params.get("fail"):
            raise ValueError("no")
        return started
"""


@pytest.mark.req("H8")
async def test_starting_a_workflow_needs_the_flag(core: EventCore, plant: Any) -> None:
    core.workflows.define(TASKS.replace("task_scheduling_workflow", "autonomous_task_followup"))
    await plant("allowed", STARTS, enable_external_workflow=True)
    await plant("refused", STARTS)
    started = await core.plugins.run("allowed")
    run = await core.workflows.run(started["run"])
    assert await run.result(5) == "follow up"
    with pytest.raises(PluginFailed, match="does not set enable_external_workflow"):
        await core.plugins.run("refused")
    assert [event.data["plugin"] for event in await of_type(core, "permission_denied")] == ["refused"]
    with pytest.raises(PluginFailed):
        await core.plugins.run("allowed", {"fail": True})  # staged, and dropped
    assert len(await core.workflows.runs()) == 1


async def test_hooks_that_call_themselves_are_stopped(core: EventCore) -> None:
    stopped: list[BaseException] = []

    async def again(event: Event) -> None:
        try:
            await core.hooks.call("on_message", {"text": "again"})
        except LoopDetected as error:
            stopped.append(error)

    core.bus.subscribe("on_message", again, ignore_self=False)
    await core.hooks.call("on_message", {"text": "hi"})
    with anyio.fail_after(60):
        await core.drain()
    assert len(stopped) == 1
    assert len(await of_type(core, "on_message")) < 10


async def test_what_one_call_stages_is_bounded_in_bytes(core: EventCore, plant: Any) -> None:
    code = """
        from eventcore.sdk import ctx
        async def run(params):
            for number in range(params["times"]):
                await ctx.emit("hoarder.kept", {"text": "x" * 250_000})
            return number
    """
    await plant("hoarder", code, permissions=["plugin_communication"])
    assert await core.plugins.run("hoarder", {"times": 60}) == 59
    with pytest.raises(PluginFailed, match="may come to 16 MiB"):
        await core.plugins.run("hoarder", {"times": 100})
    assert len(await of_type(core, "hoarder.kept")) == 60
