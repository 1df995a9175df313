"""G16, G22, G23, G27: the catalogue's first plugins, enabled and called as their rows say."""

from __future__ import annotations

from datetime import datetime

import pytest

from eventcore import EventCore
from tests.acceptance.conftest import HomeFolder, QuickHome


@pytest.fixture
def home(quick: QuickHome) -> QuickHome:
    """What is asked here is what commands do, not how their process starts."""
    return quick


@pytest.mark.req("G16")
def test_hello_world(home: HomeFolder) -> None:
    assert home.run("plugins", "enable", "hello-world").returncode == 0
    assert home.json("run", "hello_world")["result"] == {"message": "Hello World from plugin!"}


@pytest.mark.req("G22")
def test_the_calculator_computes_and_refuses_code(home: HomeFolder) -> None:
    home.run("plugins", "enable", "basic-calculator")
    good = home.json("run", "calculate", "--params", '{"expression": "2*(3+4)"}')
    assert good["result"]["result"] == 14
    bad = home.run("run", "calculate", "--params", """{"expression": "__import__('os')"}""", "--json")
    assert '"success": false' in bad.stdout.lower().replace('":false', '": false')
    assert "posix" not in bad.stdout


@pytest.mark.req("G23")
def test_the_text_processor_counts_words(home: HomeFolder) -> None:
    home.run("plugins", "enable", "text-processor")
    assert home.json("run", "text_processor", "--params", '{"op": "count", "text": "a b"}')["result"]["words"] == 2


@pytest.mark.anyio
@pytest.mark.req("G27")
async def test_time_query_returns_an_iso_time(home: HomeFolder) -> None:
    async with EventCore(home.root) as core:
        await core.plugins.enable("time-query")
        result, stdout, stderr = await core.plugins.run_plugin(
            "time-query", {"format": "iso"}, {"user_id": "123", "roles": ["user"]}
        )
    assert datetime.fromisoformat(result["time"]).tzinfo is not None
    assert (stdout, stderr) == ("", "")
