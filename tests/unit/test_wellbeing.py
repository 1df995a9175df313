"""D14 but for the Control Room: asked on a schedule and on request; unwell ones are degraded, then mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.settings import Settings
from eventcore.plugins.health import Report
from tests.acceptance.conftest import HomeFolder

pytestmark = pytest.mark.anyio

MOODY = """
import time

class Moody:
    def __init__(self, config):
        self.status = "healthy"

    def execute(self, params):
        self.status = params["status"]
        return {"status": self.status}

    def health_check(self):
        if self.status == "silent":
            time.sleep(30)
        if self.status == "broken":
            raise RuntimeError("no idea")
        return {"status": self.status, "reason": "the well is dry", "version": "1.0.0", "uptime": 3.5}
"""


def home(folder: Path) -> Path:
    place = HomeFolder(folder)
    place.plugin("moody", MOODY, **{"class": "Moody"})
    place.plugin("plain", "def run(params): return 1")
    place.settings('[plugins]\nenabled = ["moody", "plain"]\n')
    return folder


async def changes(core: EventCore) -> list[tuple[str, Any]]:
    found = [event async for event in core.history.query(type="plugin_*")]
    said = [event for event in found if event.type in ("plugin_degraded", "plugin_enabled")]
    return [(event.type, event.data["reason"]) for event in said if event.data["plugin"] == "moody"]


@pytest.mark.parametrize(("anyio_backend", "store"), [("asyncio", "memory:"), ("trio", "memory:"), ("asyncio", None)])
async def test_a_plugin_that_says_so_is_degraded_and_recovers(
    tmp_path: Path, store: str | None, anyio_backend: str
) -> None:
    settings = Settings.model_validate({"plugins": {"enabled": ["moody", "plain"], "health_interval": 0.05}})
    with anyio.fail_after(60):
        async with EventCore(home(tmp_path), settings=settings, **({"store": store} if store else {})) as core:
            async with core.bus.stream("plugin_*") as events:
                for status, wanted in (("unhealthy", "plugin_degraded"), ("healthy", "plugin_enabled")) * 2:
                    assert (await core.plugins.run("moody", {"status": status}))["status"] == status
                    async for event in events:
                        if event.type == wanted:
                            break
            assert await changes(core) == [
                ("plugin_enabled", None),
                *[("plugin_degraded", "unwell: unhealthy: the well is dry"), ("plugin_enabled", None)] * 2,
            ]
            assert 'eventcore_plugin_healthy{plugin="moody"} 1.0' in core.metrics.text()
            assert 'eventcore_plugin_healthy{plugin="plain"}' not in core.metrics.text()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite
async def test_asking_changes_the_state_too_and_silence_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    async def asked(core: EventCore) -> Report:
        record = core.plugins.get("moody")
        report = await core.plugins.health.check(record, core.engine.bus.context())
        assert report.state == record.state
        return report

    with anyio.fail_after(60):
        async with EventCore(home(tmp_path)) as core:
            assert (await asked(core)).details == {"reason": "the well is dry", "version": "1.0.0", "uptime": 3.5}
            await core.plugins.run("moody", {"status": "broken"})
            report = await asked(core)
            assert (report.status, report.state) == ("unhealthy", "degraded")
            assert "no idea" in report.reason
            await core.plugins.run("moody", {"status": "healthy"})
            assert ((await asked(core)).status, core.plugins.get("moody").state) == ("healthy", "enabled")
            await core.plugins.run("moody", {"status": "silent"})
            with monkeypatch.context() as patch:  # for the one that says nothing, not for those that have to answer
                patch.setattr("eventcore.plugins.health.PATIENCE", 0.3)
                report = await asked(core)
            assert (report.status, report.state) == ("unhealthy", "enabled")
            assert (await asked(core)).status == "healthy"  # a fresh worker
            assert await core.plugins.wellbeing.look() == [await asked(core)]
            await core.plugins.disable("moody")
            assert await core.plugins.wellbeing.look() == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # SQLite
async def test_it_stays_degraded_over_a_restart_until_it_is_well(tmp_path: Path, anyio_backend: str) -> None:
    folder = home(tmp_path)
    with anyio.fail_after(60):
        async with EventCore(folder) as core:
            await core.plugins.run("moody", {"status": "unhealthy"})
            [report] = await core.plugins.wellbeing.look()
            assert report.status == "unhealthy"
            rows = await core.engine.store.plugin_states(core.engine.tenant)
            [state] = [row for row in rows if row.plugin == "moody"]
            assert (state.state, json.dumps(state.reason)) == ("degraded", '"unwell: unhealthy: the well is dry"')
        async with EventCore(folder) as core:
            assert core.plugins.get("moody").state == "degraded"
            assert [one.status for one in await core.plugins.wellbeing.look()] == ["healthy"]
            assert core.plugins.get("moody").state == "enabled"
