"""Every role rule on every path by which somebody can call a plugin: a generated matrix."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.context import CallContext, caller
from eventcore.kernel.errors import AccessDenied, EventCoreError
from eventcore.operations import dispatcher, perform

pytestmark = pytest.mark.anyio

CODE = """
    def run(params): return {"ran": True}
    def on_message(message): return {"text": "vault heard it"}
    def on_command(command, args): return {"text": "vault opened"}
"""
PORTER = """
    from eventcore.sdk import ctx
    def run(params):
        if params.get("later"):
            return ctx.schedule("opening", after=0, call="open_vault").value
        if params.get("api"):
            return ctx.api.post("/intents/open_vault").value
        return ctx.request("vault").value
"""

#: What the manifest asks for, what the caller has, and whether that is enough: flat, and any one suffices.
RULES: list[tuple[list[str], list[str], bool]] = [
    ([], [], True),
    ([], ["user"], True),
    (["user"], [], False),
    (["user"], ["user"], True),
    (["user"], ["admin"], False),
    (["admin"], ["user"], False),
    (["admin"], ["power_user", "developer"], False),
    (["admin"], ["user", "admin"], True),
    (["developer", "admin"], ["admin"], True),
    (["developer", "admin"], ["developer"], True),
    (["developer", "admin"], ["power_user"], False),
    (["auditor"], ["admin"], False),
    (["auditor"], ["auditor"], True),
]

Path_ = Callable[[EventCore, CallContext], Awaitable[Any]]


async def direct(core: EventCore, who: CallContext) -> Any:
    return await core.plugins.run("open_vault", {}, context=who)


async def by_name(core: EventCore, who: CallContext) -> Any:
    return await core.plugins.run("vault", {}, roles=who.roles, user="ada")


async def run_plugin(core: EventCore, who: CallContext) -> Any:
    return (await core.plugins.run_plugin("vault", {}, {"user_id": "ada", "roles": list(who.roles)}))[0]


async def bus_request(core: EventCore, who: CallContext) -> Any:
    return await core.bus.request("open_vault", context=who)


async def other_plugin(core: EventCore, who: CallContext) -> Any:
    return await core.plugins.run("porter", {}, context=who)


async def other_plugins_api(core: EventCore, who: CallContext) -> Any:
    if not who.roles & {"user", "power_user", "developer", "admin"}:
        return await direct(core, who)  # the API itself is for callers with one of these
    return await core.plugins.run("porter", {"api": True}, context=who)


async def ends(core: EventCore, begin: Callable[[], Awaitable[Any]]) -> Any:
    """What the vault comes to in a call that is made later, on behalf of whoever began it."""
    async with core.bus.stream("*") as events:
        await begin()
        async for event in events:
            if event.type == "permission_denied":
                raise AccessDenied
            ran = event.data.get("plugin") if event.type in ("plugin_called", "step_completed") else None
            if ran in ("vault", "open_vault"):
                return event
    raise AssertionError


async def schedule(core: EventCore, who: CallContext) -> Any:
    return await ends(core, lambda: core.plugins.run("porter", {"later": True}, context=who))


async def triggered_workflow(core: EventCore, who: CallContext) -> Any:
    return await ends(core, lambda: core.bus.emit("vault_wanted", {}, context=who))


async def plugin_classes(core: EventCore, who: CallContext) -> Any:
    """What `PluginRouter.dispatch`, `PluginManager.run_plugin` and `eventcore plugins run` ask for."""

    async def send(item: Any) -> None: ...

    params = {"name": "open_vault", "user": "ada", "roles": sorted(who.roles)}
    return (await perform(core.engine, "plugins.call", params, send))["result"]


async def debugger(core: EventCore, who: CallContext) -> Any:
    async def send(item: Any) -> None: ...

    params = {"name": "open_vault", "user": "ada", "roles": sorted(who.roles)}
    return await perform(core.engine, "plugins.debug", params, send)


async def workflow_step(core: EventCore, who: CallContext) -> Any:
    run = await core.workflows.start("opening", {}, context=who)
    return await run.result(timeout=30)


async def chat_command(core: EventCore, who: CallContext) -> Any:
    return (await core.hooks.command({"text": "/vault now"}, context=who)).replies[0]


async def hook_reply(core: EventCore, who: CallContext) -> Any:
    """A reply is asked for on the caller's behalf; a plugin that may not serve the caller gives none."""
    outcome = await core.hooks.call("on_message", {"text": "hello"}, context=who)
    if not outcome.replies:
        raise AccessDenied
    return outcome.replies[0]


async def operation(core: EventCore, who: CallContext) -> Any:
    async def send(item: Any) -> None: ...

    params = {"intent": "open_vault", "user": "ada", "roles": sorted(who.roles)}
    return await perform(core.engine, "intents.run", params, send)


async def control_socket(core: EventCore, who: CallContext) -> Any:
    async def send(item: Any) -> None: ...

    params = {"intent": "open_vault", "user": "ada", "roles": sorted(who.roles), "context": {"roles": ["admin"]}}
    return await dispatcher(core.engine)("intents.run", params, send)


async def chat(core: EventCore, who: CallContext) -> Any:
    async def send(item: Any) -> None: ...

    said = {"text": "/vault now", "user": "ada", "roles": sorted(who.roles)}
    return (await perform(core.engine, "chat.say", said, send))["replies"][0]


PATHS: list[Path_] = [
    direct, by_name, run_plugin, bus_request, other_plugin, workflow_step, chat_command, hook_reply, operation,
    control_socket, chat, other_plugins_api, schedule, triggered_workflow, plugin_classes, debugger,
]  # fmt: skip


def plant(core: EventCore, folder: Path, code: str, **manifest: Any) -> str:
    folder.mkdir(parents=True)
    body = {"name": folder.name, "version": "1.0.0", "module": "handler", "plugin_api_version": "1.0", **manifest}
    (folder / "plugin_manifest.json").write_text(json.dumps(body))
    (folder / "handler.py").write_text(textwrap.dedent(code))
    core.plugins.registry.discover(str(folder), str(folder / "plugin_manifest.json"), None, "home", None)
    return folder.name


async def test_the_same_rule_on_every_path(core: EventCore, tmp_path: Path) -> None:
    vault = {
        "intent": "open_vault",
        "permissions": ["chat_access"],
        "commands": [{"name": "/vault"}],
    }
    plant(core, tmp_path / "vault", CODE, **vault)
    plant(core, tmp_path / "porter", PORTER, permissions=["plugin_communication", "scheduler", "api_access"])
    await core.plugins.enable("vault", grants=["chat_access"])
    await core.plugins.enable("porter", grants=["plugin_communication", "scheduler", "api_access"])
    triggered = {"slug": "wanted", "steps": [{"id": "open", "plugin": "open_vault"}]}
    core.workflows.define({**triggered, "triggers": [{"event": "vault_wanted"}]})
    core.workflows.define({"slug": "opening", "steps": [{"id": "open", "plugin": "open_vault"}]})
    record = core.plugins.get("vault")
    wrong = []
    for needed, roles, enough in RULES:
        assert record.manifest is not None
        record.manifest = record.manifest.model_copy(update={"required_roles": tuple(needed)})
        for path in PATHS:
            refusals = await refused(core)
            try:
                await path(core, caller("user:ada", roles))
                passed, code = True, ""
            except EventCoreError as error:
                passed, code = False, getattr(error, "kind", "") or error.code
            seen = await refused(core) - refusals
            if passed is not enough or seen != (0 if enough else 1):
                wrong.append((path.__name__, needed, roles, code, seen))
    assert wrong == []


async def refused(core: EventCore) -> int:
    """Refusals in the history, each of which stands in the audit log as well."""
    events = [event async for event in core.history.query(type="permission_denied")]
    entries = [row for row in await core.engine.store.audit(limit=1000) if row.action == "permission_denied"]
    assert [event.id for event in events] == [row.id for row in reversed(entries)]
    return len(events)


async def test_guards_are_asked_whatever_roles_the_caller_has(core: EventCore, tmp_path: Path) -> None:
    """A gate or an observer that were left out for want of a role would let pass what it is there to see."""
    code = """
        from eventcore.sdk import Deny, gate
        @gate
        def on_message(message): return Deny("no") if "secret" in message["text"] else None
    """
    plant(core, tmp_path / "guard", code, permissions=["chat_access"], required_roles=["admin"])
    await core.plugins.enable("guard", grants=["chat_access"])
    outcome = await core.hooks.call("on_message", {"text": "a secret"}, context=caller("user:ada", ["user"]))
    assert outcome.denied
    assert await refused(core) == 0


async def test_in_process_intents_have_the_same_rule(core: EventCore) -> None:
    core.plugins.intent("lock", lambda params: {"locked": True}, roles=["admin"])
    for path in (
        core.plugins.run("lock", context=caller("u", ["user"])),
        core.bus.request("lock", context=caller("u")),
    ):
        with pytest.raises(AccessDenied, match="lock needs one of the roles admin"):
            await path
    assert await refused(core) == 2


async def test_a_flood_of_refusals_is_bounded(core: EventCore) -> None:
    core.plugins.intent("lock", lambda params: None, roles=["admin"])
    with anyio.fail_after(60):
        for _ in range(399):
            with pytest.raises(AccessDenied):
                await core.plugins.run("lock", context=caller("user:mallory"))
    assert 100 <= await refused(core) < 300
    assert 'permission_denied_total{plugin="host"} 399' in core.engine.metrics.text()
