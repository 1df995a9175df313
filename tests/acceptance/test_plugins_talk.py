"""A9, A12: plugins that ask each other, the past once more, durable events of plugins, and the verbs from outside."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from eventcore import EventCore
from eventcore.bus.acks import Durable
from eventcore.kernel.errors import NoResponder, PluginFailed
from eventcore.kernel.event import Event
from tests.acceptance.conftest import HomeFolder

TALKS = {"permissions": ["plugin_communication"]}

WRITER = """
from eventcore.sdk import ctx

async def run(params):
    answer = await ctx.request(params["whom"], {"text": params["text"]}, timeout=28)
    return {"heading": answer["summary"].upper()}

async def on_article_written(event):
    await ctx.request("summarizer", event.data, timeout=28)
    await ctx.emit("article_announced", {"text": event.data["text"]})
"""

SUMMARIZER = """
def run(params):
    return {"summary": params["text"].split(".")[0]}
"""


@pytest.mark.anyio
@pytest.mark.req("A9")
async def test_plugins_talk_by_request_and_by_event(home: HomeFolder) -> None:
    home.plugin("writer", WRITER, **TALKS, events={"emits": ["article_announced"]})
    home.plugin("summarizer", SUMMARIZER)
    home.plugin("announcer", "def on_article_announced(event):\n    return event['data']['text']\n", **TALKS)
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            for name in ("writer", "summarizer", "announcer"):
                await core.plugins.enable(name, grants=["plugin_communication"] if name != "summarizer" else [])
            asked = {"whom": "summarizer", "text": "Rain. And more rain."}
            assert await core.plugins.run("writer", asked) == {"heading": "RAIN"}

            began = anyio.current_time()
            with pytest.raises(PluginFailed, match="sumarizer") as caught:
                await core.plugins.run("writer", {**asked, "whom": "sumarizer"})
            assert caught.value.kind == "NoResponder"
            assert anyio.current_time() - began < 20  # at once, not after the 28 seconds

            report = await core.bus.emit_and_wait("article_written", {"text": "Sun. At last."})
            assert [one.status for one in report] == ["ok"]
            [announced] = [event async for event in core.history.query(type="article_announced")]
            assert (announced.actor, announced.causation_id) == ("plugin:writer", report.event.id)
            called = [event async for event in core.history.query(type="plugin_called")]
            assert [event.subject for event in called] == ["summarizer", "writer", "summarizer"]


@pytest.mark.anyio
@pytest.mark.req("A12")
async def test_the_past_is_delivered_once_more_to_one_subscription(home: HomeFolder) -> None:
    home.plugin("counter", COUNTER, **DURABLE)
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("counter", grants=["plugin_communication"])
            live: list[str] = []
            core.bus.subscribe("stock_counted", lambda event: live.append(event.id), name="live")
            for n in range(3):
                await core.bus.emit("stock_counted", {"n": n, "do": "count"})
            await core.drain()
            words = ("events", "replay", "counter.on_stock_counted", "--since", "2h")
            again = await anyio.to_thread.run_sync(home.json, *words)
            assert (again["matched"], again["delivered"], again["failed"]) == (3, 3, 0)
            noted = [event.data async for event in core.history.query(type="stock_noted")]
            assert noted == [{"n": n, "replay": past, "attempt": 1} for past in (False, True) for n in range(3)]
            assert len(live) == 3  # the other subscription hears nothing of it


DURABLE = {
    **TALKS,
    "events": {"emits": ["stock_noted", "stock_early"], "durable": ["stock_counted"]},
    "resource_limits": {"timeout_seconds": 5},
}

COUNTER = """
import asyncio
from eventcore.sdk import Nak, Term, ctx

async def on_stock_counted(event):
    do = event.data["do"]
    if do == "early":
        await ctx.emit("stock_early", event.data, now=True)
    await ctx.emit("stock_noted", {"n": event.data["n"], "replay": ctx.replay, "attempt": ctx.attempt})
    if do == "fail" and ctx.attempt == 1:
        raise RuntimeError("the shelf fell over")
    if do == "nak" and ctx.attempt < 3:
        if ctx.attempt == 1:
            raise Nak(0.01)
        return Nak(delay=0)
    if do == "wrong" and ctx.attempt == 1:
        raise Nak("soon")
    if do == "term":
        raise Term("no such shelf")
    if do == "dawdle":
        for _ in range(11):
            await asyncio.sleep(0.5)
            await ctx.in_progress()

async def run(params):
    await ctx.in_progress()
"""


@pytest.mark.anyio
async def test_what_a_durable_handler_of_a_plugin_did_is_committed_with_its_ack_or_not_at_all(home: HomeFolder) -> None:
    home.plugin("counter", COUNTER, **DURABLE)
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("counter", grants=["plugin_communication"])
            [mine] = [one for one in core.bus.subscriptions() if one.name == "counter.on_stock_counted"]
            assert getattr(mine, "stored", None) == "counter/on_stock_counted"
            receipt = await core.bus.emit("stock_counted", {"n": 1, "do": "fail"})
            settled = await core.bus.find("stock_noted", future=60)
            assert settled is not None
            # The first attempt staged it and failed: nothing of that is there, only what the second one said.
            assert settled.data == {"n": 1, "replay": False, "attempt": 2}
            assert settled.causation_id == receipt.id
            assert len([event async for event in core.history.query(type="stock_noted")]) == 1
            # 5.5 seconds of work under a limit of 5, with signs of life.
            await core.bus.emit("stock_counted", {"n": 2, "do": "dawdle"})
            late = await core.bus.find("stock_noted", where={"data.n": 2}, past=0, future=60)
            assert late is not None
            assert late.data["attempt"] == 1
            with pytest.raises(PluginFailed, match="durable"):
                await core.plugins.run("counter", {})
        assert mine.handled == 2

        async with EventCore(home.root, quiet=True) as core:
            await core.bus.emit("stock_counted", {"n": 3, "do": "count"})  # nobody consumes
        async with EventCore(home.root) as core:
            missed = await core.bus.find("stock_noted", where={"data.n": 3}, past=30, future=60)
            assert missed is not None


@pytest.mark.anyio
async def test_a_plugin_may_ask_for_a_delivery_again_or_never_again(home: HomeFolder) -> None:
    home.plugin("counter", COUNTER, **DURABLE)
    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            await core.plugins.enable("counter", grants=["plugin_communication"])
            await core.bus.emit("stock_counted", {"n": 1, "do": "nak"})
            noted = await core.bus.find("stock_noted", future=60)
            assert noted is not None
            assert noted.data == {"n": 1, "replay": False, "attempt": 3}  # what it emitted before each Nak is dropped
            await core.bus.emit("stock_counted", {"n": 2, "do": "term"})
            buried = await core.bus.find("bus_dead_letter", past=0, future=60)
            assert buried is not None
            assert (buried.data["reason"], buried.data["attempts"]) == ("no such shelf", 1)
            await core.bus.emit("stock_counted", {"n": 3, "do": "wrong"})
            failed = await core.bus.find("plugin_error", past=0, future=60)
            assert failed is not None
            assert "Nak takes a number of seconds from 0 to 2,592,000, or None, not 'soon'" in str(failed.data)
            events = [event.data["n"] async for event in core.history.query(type="stock_noted")]
            assert events == [1]


@pytest.mark.anyio
async def test_a_durable_event_needs_its_function(home: HomeFolder) -> None:
    home.plugin("counter", "def run(params): ...", events={"durable": ["stock_counted"]})
    home.plugin("hooked", "def on_message(payload): ...", events={"durable": ["on_message"]})
    async with EventCore(home.root) as core:
        with pytest.raises(Exception, match="on_stock_counted"):
            await core.plugins.enable("counter")
        with pytest.raises(Exception, match="is a hook"):
            await core.plugins.enable("hooked")


@pytest.mark.anyio
async def test_the_faces_of_a_running_engine_have_the_verbs(home: HomeFolder) -> None:
    home.plugin("summarizer", SUMMARIZER)
    broken = True

    async def bill(event: Event) -> None:
        if broken and event.data["n"] == 0:
            raise ConnectionError("the bank does not answer")

    with anyio.fail_after(250):
        async with EventCore(home.root) as owner:
            await owner.plugins.enable("summarizer")
            owner.bus.subscribe("paid", bill, name="billing", durable=Durable(max_deliver=1))
            async with EventCore(home.root) as guest:
                assert guest.remote
                assert await guest.bus.request("summarizer", {"text": "Rain. Snow."}) == {"summary": "Rain"}
                with pytest.raises(NoResponder, match="sumarizer"):
                    await guest.bus.request("sumarizer")
                receipts = await guest.bus.emit_many([("paid", {"n": 0}), {"type": "paid", "data": {"n": 1}}])
                assert [one.position for one in receipts] == [receipts[0].position, (receipts[0].position or 0) + 1]
                waiting = [guest.bus.emit_nowait("paid", {"n": n}) for n in (2, 3)]
                first, second = [(await one).position or 0 for one in waiting]
                assert receipts[1].position is not None
                assert receipts[1].position < first < second
                refused = guest.bus.emit_nowait("system_started", {})
                with pytest.raises(Exception, match="host"):
                    await refused
                found = await guest.bus.find("paid", where={"data.n": 3})
                assert found is not None
                assert found.data == {"n": 3}
                assert await guest.bus.find("unheard_of", future=0.05) is None

                assert await owner.bus.find("bus_dead_letter", future=60) is not None
                [letter] = await guest.bus.dead_letters.list(subscription="billing")
                assert letter.event is not None
                assert letter.event.id == receipts[0].id
                report = await guest.bus.replay("billing", since=0)
                assert (report.matched, report.delivered, report.failed) == (4, 3, 1)
                [(event, outcome)] = report.failures
                assert (event.id, outcome.status) == (receipts[0].id, "error")
                broken = False
                await guest.bus.dead_letters.redrive(letter.id)
                assert await guest.bus.dead_letters.list() == []
                last = guest.bus.emit_nowait("paid", {"n": 4})
            assert (await last).position  # closing waits for what was accepted


async def places(core: EventCore) -> dict[str, str]:
    return {place.name: place.state for place in await core.bus.places.list()}


@pytest.mark.anyio
async def test_a_durable_event_that_the_manifest_says_is_removed_keeps_no_place(home: HomeFolder) -> None:
    code = "def on_order_created(event):\n    pass\n\ndef run(params):\n    pass\n"
    home.plugin("biller", code, events={"durable": ["order_created"]})
    async with EventCore(home.root) as core:
        await core.plugins.enable("biller")
        await core.bus.emit("order_created", {"id": 1})
        await core.drain()
        assert await places(core) == {"biller/on_order_created": "consuming"}
        await core.plugins.disable("biller")
    # Taken out of the code alone, its place stays: it may come back.
    code = "def run(params):\n    pass\n"
    home.plugin("biller", code)
    async with EventCore(home.root) as core:
        await core.plugins.enable("biller")
        assert await places(core) == {"biller/on_order_created": "unused"}
        await core.plugins.disable("biller")
    home.plugin("biller", code, events={"removed": ["order_created"]})
    async with EventCore(home.root) as core:
        await core.plugins.enable("biller")
        assert await places(core) == {}
