"""A3, A8, A10: events of plugins, listening, and the history."""

from __future__ import annotations

import anyio
import pytest
from pydantic import BaseModel

from eventcore import Event, EventCore
from eventcore.kernel.errors import PluginFailed
from tests.acceptance.conftest import HomeFolder

EMITTER = """
from eventcore.sdk import ctx

async def run(params):
    return await ctx.emit(params["type"], params.get("data"))
"""

COMMUNICATES = {"permissions": ["plugin_communication"], "events": {"emits": ["data_processed"]}}


class Processed(BaseModel):
    rows: int


@pytest.mark.anyio
@pytest.mark.req("A3")
async def test_a_plugin_emits_what_its_manifest_lists_and_nothing_else(home: HomeFolder) -> None:
    home.plugin("emitter", EMITTER, **COMMUNICATES)
    async with EventCore(home.root) as core:
        core.bus.declare("data_processed", model=Processed, version=2)
        await core.plugins.enable("emitter", grants=["plugin_communication"])
        await core.plugins.run("emitter", {"type": "data_processed", "data": {"rows": 3}})
        [recorded] = [event async for event in core.history.query(type="data_processed")]
        assert recorded.data == {"rows": 3}
        assert recorded.actor == "plugin:emitter"
        assert recorded.schema_version == 2

        for refused in ("not_listed", "workflow_started", "other-plugin.thing"):
            with pytest.raises(PluginFailed) as caught:
                await core.plugins.run("emitter", {"type": refused, "data": {}})
            assert caught.value.kind == "PermissionDenied"
        denied = [event.data["plugin"] async for event in core.history.query(type="permission_denied")]
        assert denied == ["emitter"] * 3

        with pytest.raises(PluginFailed, match="rows"):
            await core.plugins.run("emitter", {"type": "data_processed", "data": {"rows": "many"}})
        assert len([event async for event in core.history.query(type="data_processed")]) == 1


LISTENER = """
def on_workflow_started(event):
    print("heard", event["data"]["slug"])
    return event["data"]["slug"]
"""


@pytest.mark.anyio
@pytest.mark.req("A8")
async def test_host_code_plugins_and_the_tap_all_listen(home: HomeFolder) -> None:
    home.plugin("listener", LISTENER)
    filtered: list[str] = []
    tapped: list[str] = []
    outcomes: list[tuple[str, str]] = []

    def remember(event: Event) -> None:
        filtered.append(event.type)

    async with EventCore(home.root) as core:
        await core.plugins.enable("listener")

        @core.intent("nothing")
        async def nothing(params: dict[str, object]) -> None: ...

        core.bus.subscribe("workflow_*", remember, where=lambda event: event.data.get("status") == "completed")
        core.signals.workflow_started.connect(lambda sender, event: tapped.append(event.data["slug"]))
        heard = core.bus.subscriptions()
        assert "listener.on_workflow_started" in [one.name for one in heard]
        core.workflows.define("slug: quiet\nsteps: [{id: s, plugin: nothing}]")
        run = await core.workflows.start("quiet")
        await run.result(timeout=60)
        await core.drain()
        metrics = core.metrics.text()
        outcomes = [
            (line, line.rsplit(" ", 1)[1])
            for line in metrics.splitlines()
            if line.startswith("eventcore_deliveries_total") and "listener.on_workflow_started" in line
        ]
    assert filtered == ["workflow_completed"]
    assert tapped == ["quiet"]
    assert len(outcomes) == 1
    assert 'outcome="ok"' in outcomes[0][0]
    assert float(outcomes[0][1]) == 1


@pytest.mark.req("A10")
def test_history_is_found_and_explained_after_a_restart(home: HomeFolder) -> None:
    home.write(
        "workflows/book.yaml",
        """
        slug: book
        triggers:
          - event: data_processed
            with: {what: "{{ event.data.what }}"}
        steps:
          - {id: note, emit: booked, with: {what: "{{ inputs.what }}"}}
        """,
    )
    cause = home.json("emit", "data_processed", '{"what": "invoice 17"}')
    home.json("emit", "data_processed", '{"what": "receipt 3"}')
    # Each command opens and closes an engine of its own: what follows is after a restart.
    found = home.json("events", "list", "--type", "data_processed", "--since", "1h", "--text", "invoice")
    assert [event["data"] for event in found] == [{"what": "invoice 17"}]

    shown = home.run("events", "show", cause["id"])
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    effects = ["data_processed", "workflow_started", "step_started", "booked"]
    columns = [next(line.index(name) for line in lines if name in line) for name in effects]
    assert columns == sorted(set(columns)), "each effect stands deeper than its cause"


@pytest.mark.anyio
async def test_the_filter_does_not_stop_other_subscriptions() -> None:
    """Beside A8: a filter that raises is that subscription's failure alone."""
    seen: list[object] = []
    async with EventCore() as core:
        core.bus.subscribe("order_*", seen.append, name="broken", where=lambda event: event.data["absent"])
        core.bus.subscribe("order_*", lambda event: seen.append(event.data), name="fine")
        with anyio.fail_after(30):
            report = await core.bus.emit_and_wait("order_created", {"id": 1})
    assert seen == [{"id": 1}]
    assert {outcome.subscription: outcome.status for outcome in report} == {"broken": "error", "fine": "ok"}
