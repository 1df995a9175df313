"""A6: retries, dead letters, and the way back."""

from __future__ import annotations

from itertools import pairwise

import anyio
import anyio.to_thread
import pytest

from eventcore import Event, EventCore
from eventcore.bus.acks import Durable
from tests.acceptance.conftest import HomeFolder


@pytest.mark.anyio
@pytest.mark.timeout(300)
@pytest.mark.req("A6")
async def test_five_failures_make_a_dead_letter_that_is_redriven_after_the_fix(home: HomeFolder) -> None:
    attempts: list[float] = []
    billed = anyio.Event()
    fixed = False

    async def bill(event: Event) -> None:
        attempts.append(anyio.current_time())
        if not fixed:
            raise ConnectionError("the bank does not answer")
        billed.set()

    with anyio.fail_after(250):
        async with EventCore(home.root) as core:
            durable = Durable(backoff=(0.05, 0.1, 0.2))
            core.bus.subscribe("order_created", bill, name="billing", durable=durable)
            receipt = await core.bus.emit("order_created", {"id": 7})
            assert await core.bus.find("bus_dead_letter", future=60) is not None
            waits = [later - earlier for earlier, later in pairwise(attempts)]
            assert len(attempts) == 5
            assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2, 0.2), strict=True))

            [letter] = await anyio.to_thread.run_sync(home.json, "deadletters", "list")
            assert (letter["event"], letter["subscription"], letter["attempts"]) == (receipt.id, "billing", 5)
            assert "the bank does not answer" in letter["reason"]
            shown = await anyio.to_thread.run_sync(home.run, "deadletters", "show", letter["id"])
            assert "order_created" in shown.stdout

            fixed = True
            done = await anyio.to_thread.run_sync(home.run, "deadletters", "redrive", letter["id"])
            assert done.returncode == 0, done.stderr
            await billed.wait()
            assert await anyio.to_thread.run_sync(home.json, "deadletters", "list") == []

            # The past again, to the same subscription; then one that is not there.
            again = await anyio.to_thread.run_sync(home.json, "events", "replay", "billing", "--since", "2h")
            assert (again["matched"], again["delivered"]) == (1, 1)
            assert len(attempts) == 7
            wrong = await anyio.to_thread.run_sync(home.run, "events", "replay", "biling")
            assert wrong.returncode == 1
            assert "billing" in wrong.stderr
    assert home.run("deadletters", "drop", letter["id"]).returncode == 1
