"""K1: what `eventcore.testing` gives authors of plugins; and that the kit's parts do what they say."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import anyio
import pytest

import eventcore.testing
from eventcore.sdk import PermissionDenied, ctx
from eventcore.testing import HomeKit, RecordedContext, StubEndpoint, VirtualClock, plugin_context
from tests.acceptance.conftest import HomeFolder

CATALOGUE = Path(__file__).resolve().parents[2] / "plugins"

COUNTER = """
from eventcore.sdk import ctx

async def run(params):
    await ctx.emit("word_counted", {"words": len(params["text"].split())})
    await ctx.memory.write("last text", params["text"])
    return {"before": len(await ctx.memory.read("last")), "limit": ctx.config.get("limit")}
"""

WAITING = """
slug: patience
steps:
  - {id: wait, sleep: 3600}
  - {id: say, emit: waited_enough}
"""


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    folder = HomeFolder(tmp_path / "source")
    code = folder.plugin(
        "word-counter",
        COUNTER,
        permissions=["plugin_communication", "memory_write"],
        events={"emits": ["word_counted"]},
    )
    return code.parent


@pytest.mark.req("K1")
def test_a_plugin_is_installed_and_called_in_five_lines(eventcore_home: HomeKit, counter: Path) -> None:
    # fmt: off
    slug = eventcore_home.install(CATALOGUE / "examples" / "hello-world")
    assert eventcore_home.call(slug) == {"message": "Hello World from plugin!"}
    # fmt: on
    grants = ["plugin_communication", "memory_write"]
    with pytest.raises(Exception, match="plugin_communication, which it was not granted"):
        eventcore_home.install(counter)
    eventcore_home.install(counter, grants=grants)
    with pytest.raises(Exception, match="memory_read"):  # the real sandbox's host: what is not granted is refused
        eventcore_home.call("word-counter", {"text": "to be"})
    assert [event["data"]["message"][:12] for event in eventcore_home.events("permission_denied")] == ["word-counter"]
    assert eventcore_home.events("word_counted") == []  # what a failed call staged is dropped


def test_recorded_events_and_virtual_time(eventcore_home: HomeKit, virtual_clock: VirtualClock) -> None:
    (eventcore_home / "workflows" / "patience.yaml").write_text(WAITING)
    eventcore_home.restart()
    run = eventcore_home.perform("workflows.start", slug="patience")["run"]
    eventcore_home.advance(3599)
    assert eventcore_home.events("waited_enough") == []
    eventcore_home.advance(1)
    assert [event["run"] for event in eventcore_home.events("waited_enough")] == [run]
    head = eventcore_home.perform("runs.show", id=run)
    assert (head["status"], round(head["seconds"])) == ("completed", 3600)


def test_virtual_time_goes_on_over_a_restart(eventcore_home: HomeKit, virtual_clock: VirtualClock) -> None:
    (eventcore_home / "workflows" / "patience.yaml").write_text(WAITING)
    eventcore_home.restart()
    run = eventcore_home.perform("workflows.start", slug="patience")["run"]
    eventcore_home.settle()
    virtual_clock.advance(7200)
    eventcore_home.restart()
    eventcore_home.settle()
    assert eventcore_home.perform("runs.wait", id=run, timeout=60)["status"] == "completed"


def test_a_plugins_functions_in_this_process(
    load_plugin: Callable[..., ModuleType], plugin_ctx: RecordedContext, counter: Path
) -> None:
    plugin_ctx.config = {"limit": 3}
    handler = load_plugin(counter)
    assert handler.__name__ == "word_counter.handler"
    assert anyio.run(handler.run, {"text": "to be or not"}) == {"before": 1, "limit": 3}
    assert plugin_ctx.emitted == [("word_counted", {"words": 4})]
    assert plugin_ctx.memories == [{"query": "last text", "result": "to be or not"}]
    assert [method for method, _ in plugin_ctx.asked] == ["emit", "memory.write", "memory.read"]


def test_a_recorded_context_answers_and_refuses_as_told() -> None:
    with plugin_context(answers={"request": lambda params: params["intent"]}, denied=("emit",)) as recorded:
        assert ctx.request("other").value == "other"
        with pytest.raises(PermissionDenied):
            ctx.emit("some.thing", {})
        with pytest.raises(TypeError):  # what is not JSON would not reach the host either
            ctx.memory.write("x", object())
        ctx.log("info", "hello")
    assert recorded.logged == [("info", "hello")]
    assert recorded.emitted == []


def test_a_stub_endpoint_answers_and_remembers(stub_endpoint: StubEndpoint) -> None:
    stub_endpoint.answer("/v1/echo", {"ok": True}, status=201)
    request = urllib.request.Request(f"{stub_endpoint.url}/v1/echo?a=1", b'{"x": 1}', {"X-Key": "k"})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert (response.status, response.read()) == (201, b'{"ok": true}')
    (asked,) = stub_endpoint.asked
    assert (asked.method, asked.path, asked.headers["x-key"], asked.json()) == ("POST", "/v1/echo?a=1", "k", {"x": 1})
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{stub_endpoint.url}/nothing", timeout=60)


@pytest.mark.anyio
async def test_a_virtual_clock_wakes_sleepers_in_their_order() -> None:
    clock, woken = VirtualClock(), []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (30.0, 10.0, 20.0, 40.0):
            tasks.start_soon(sleep, seconds)
        await anyio.wait_all_tasks_blocked()
        clock.advance(30)
        await anyio.wait_all_tasks_blocked()
        assert woken == [10.0, 20.0, 30.0]
        assert clock.monotonic() == 30
        await anyio.to_thread.run_sync(clock.advance, 10)
    assert woken[-1] == 40.0
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_no_module_of_the_package_hides_one_of_its_names() -> None:
    """A module that is imported becomes an attribute of its package, in place of what has its name."""
    folder = Path(eventcore.testing.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert not modules & {*eventcore.testing.__all__}
