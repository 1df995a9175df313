"""Searching the history, and what caused what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventcore import EventCore
from eventcore.kernel.context import caller
from eventcore.kernel.errors import InvalidInput, NotFound
from eventcore.kernel.event import Event

pytestmark = pytest.mark.anyio


async def found(core: EventCore, **query: Any) -> list[Any]:
    return [event.data async for event in core.history.query(**query) if event.type != "system_started"]


async def test_conditions(core: EventCore) -> None:
    await core.bus.emit("order_created", 1, subject="o-1", source="/shop")
    await core.bus.emit("order_paid", 2, subject="o-1", context=caller("user:ada"))
    await core.bus.emit("my-plugin.done", {"word": "Invoice 7"})
    await core.bus.emit("order_created", 4, context=caller("user:eve", tenant="acme"))
    assert await found(core, type="order_*") == [1, 2]
    assert await found(core, type="order_paid") == [2]
    assert await found(core, subject="o-1") == [1, 2]
    assert await found(core, source="/shop") == [1]
    assert await found(core, actor="user:ada") == [2]
    assert await found(core, text="invoice 7") == [{"word": "Invoice 7"}]
    assert await found(core) == [1, 2, {"word": "Invoice 7"}]  # never another tenant's
    assert await found(core, newest_first=True, limit=2) == [{"word": "Invoice 7"}, 2]


async def test_times(core: EventCore) -> None:
    await core.bus.emit("x", 1)
    now = datetime.now(UTC)
    for since in (timedelta(minutes=1), now - timedelta(seconds=30), now.timestamp() - 30):
        assert await found(core, type="x", since=since) == [1]
    assert await found(core, type="x", since=now + timedelta(seconds=30)) == []
    assert await found(core, type="x", until=timedelta(minutes=1)) == []


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_meet_without_gap_or_overlap(
    core: EventCore, newest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventcore.bus.history._PAGE", 7)
    for number in range(30):
        await core.bus.emit("x", number)
    numbers = [*range(30)][:: -1 if newest_first else 1]
    assert await found(core, type="x", newest_first=newest_first) == numbers
    assert await found(core, type="x", newest_first=newest_first, limit=16) == numbers[:16]
    page = [event async for event in core.history.query(type="x", newest_first=newest_first, limit=10)]
    edge = {"before": page[-1].position} if newest_first else {"after": page[-1].position}
    assert await found(core, type="x", newest_first=newest_first, **edge) == numbers[10:]


async def test_bad_queries(core: EventCore) -> None:
    with pytest.raises(InvalidInput):
        await found(core, type="Not A Pattern")
    with pytest.raises(InvalidInput):
        await found(core, limit=0)
    with pytest.raises(NotFound, match="there is no event nothing"):
        await core.history.get("nothing")


async def test_the_tree_of_causes(core: EventCore) -> None:
    async def first(event: Event) -> None:
        await core.bus.emit("middle", 1)
        await core.bus.emit("middle", 2)

    async def second(event: Event) -> None:
        if event.data == 2:
            await core.bus.emit("end")

    core.bus.subscribe("begin", first)
    core.bus.subscribe("middle", second)
    receipt = await core.bus.emit("begin")
    await core.bus.emit("unrelated")
    await core.drain()
    [leaf] = [event async for event in core.history.query(type="end")]
    for event_id in (receipt.id, leaf.id):
        tree = await core.history.tree(event_id)
        [root] = tree.roots
        assert root.event.type == "begin"
        assert [(node.event.data, [one.event.type for one in node.effects]) for node in root.effects] == [
            (1, []),
            (2, ["end"]),
        ]
        assert not tree.truncated
