"""Plugins that carry workflows."""

from __future__ import annotations

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import UnknownWorkflow
from tests.acceptance.conftest import HomeFolder

MANIFEST = """
name: watcher
version: 1.0.0
type: workflow
main: main.py
"""
PATIENT = """
slug: watch_parcel
steps:
  - {id: wait, wait_for: {event: parcel_arrived}}
  - {id: tell, emit: parcel_seen}
outputs: "{{ steps.wait.output.data }}"
"""


@pytest.mark.anyio
@pytest.mark.req("H12")
async def test_workflows_come_and_go_with_their_plugin_and_runs_stay_pinned(home: HomeFolder) -> None:
    home.write("plugins/watcher/plugin.yaml", MANIFEST)
    home.write("plugins/watcher/main.py", "")
    home.write("plugins/watcher/workflows/watch_parcel.yaml", PATIENT)
    home.write("plugins/watcher/workflows/other.yaml", "slug: other\nsteps: [{id: a, emit: done}]\n")

    def listed() -> set[str]:
        return {one["slug"] for one in home.json("workflows", "list")} & {"watch_parcel", "other"}

    assert listed() == set()
    home.json("plugins", "enable", "watcher")
    assert listed() == {"watch_parcel", "other"}
    async with EventCore(home.root) as core:
        run = await core.workflows.start("watch_parcel")
        await core.drain(60)
    home.json("plugins", "disable", "watcher")
    assert listed() == set()
    async with EventCore(home.root) as core:
        with pytest.raises(UnknownWorkflow):
            await core.workflows.start("watch_parcel")
        await core.bus.emit("parcel_arrived", 7)
        assert await (await core.workflows.run(run.id)).result(60) == 7  # pinned to its definition
    home.json("plugins", "enable", "watcher")
    assert listed() == {"watch_parcel", "other"}
