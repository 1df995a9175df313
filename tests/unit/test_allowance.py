"""What grants and limits become: the worker's allowance, and its plan."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import InvalidInput, PluginFailed
from eventcore.kernel.settings import SandboxSettings
from eventcore.plugins.allowance import allowance
from eventcore.plugins.manifest import read_manifest
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord
from eventcore.plugins.sandbox.confine import Plan
from eventcore.plugins.sandbox.planning import make_plan
from eventcore.plugins.sandbox.spec import Allowance, WorkerSpec

READ, WRITE = PluginPermission.FILESYSTEM_READ, PluginPermission.FILESYSTEM_WRITE


def record(folder: Path, *granted: PluginPermission, **fields: Any) -> PluginRecord:
    manifest = {"name": "p", "version": "1.0.0", "description": "-", "plugin_api_version": "1.0", "intent": "p"}
    manifest |= {"module": "handler", "required_roles": ["user"], "author": "a", **fields}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "handler.py").write_text("def run(params): ...")
    (folder / "plugin_manifest.json").write_text(json.dumps(manifest))
    made = PluginRecord("p", str(folder), "home", read_manifest(folder / "plugin_manifest.json"))
    made.granted = frozenset(granted)
    return made


def with_folders(made: PluginRecord, *folders: str) -> PluginRecord:
    assert made.manifest is not None
    made.manifest = made.manifest.model_copy(update={"file_access": folders})
    return made


def test_nothing_is_granted_by_default(tmp_path: Path) -> None:
    plain = with_folders(record(tmp_path / "p"), "data")
    assert allowance(plain, SandboxSettings(), tmp_path) == Allowance()
    reader = with_folders(record(tmp_path / "p", READ), "data")
    assert allowance(reader, SandboxSettings(), None) == Allowance()


def test_reading_and_writing_are_apart(tmp_path: Path) -> None:
    base = tmp_path / "p"
    reader = with_folders(record(tmp_path / "code", READ), "data", "./data/")
    assert allowance(reader, SandboxSettings(), tmp_path) == Allowance(read=(f"{base}/data",), cwd=str(base))
    writer = with_folders(record(tmp_path / "code", WRITE), "data", "more")
    found = allowance(writer, SandboxSettings(), tmp_path)
    assert found == Allowance(write=(f"{base}/data", f"{base}/more"), cwd=str(base))
    everything = with_folders(record(tmp_path / "code", WRITE))
    assert allowance(everything, SandboxSettings(), tmp_path).write == (str(base),)


def test_a_link_that_the_plugin_made_leads_no_grant_elsewhere(tmp_path: Path) -> None:
    made = with_folders(record(tmp_path / "code", READ), "data")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "data").symlink_to("/etc")
    with pytest.raises(InvalidInput, match="leads out of its folder of data"):
        allowance(made, SandboxSettings(), tmp_path)


def test_a_manifest_may_ask_for_less_and_not_for_more(tmp_path: Path) -> None:
    made = record(tmp_path / "p")
    assert made.manifest is not None
    limits = made.manifest.limits.model_copy(update={"memory_mb": 128, "cpu_percent": 50})
    made.manifest = made.manifest.model_copy(update={"limits": limits})
    ours = SandboxSettings(memory_mb=64, cpu_percent=75, disk_mb=8, threads=9, isolation="call", require="full")
    found = allowance(made, ours, None)
    assert (found.memory_mb, found.cpu_percent) == (64, 50)
    assert (found.disk_mb, found.threads, found.isolation, found.full) == (8, 9, "call", True)
    assert allowance(made, SandboxSettings(), None).memory_mb == 128


def test_a_plan_survives_json_and_holds_what_it_must(tmp_path: Path) -> None:
    spec = WorkerSpec("p", tmp_path, allow=Allowance(write=("/w",), ports=(443,), memory_mb=1, disk_mb=2))
    plan = make_plan(spec, namespaces=True, abi=7, folder="")
    assert Plan.of(json.loads(json.dumps(plan.as_dict()))) == plan
    assert str(tmp_path) in plan.read
    assert (plan.memory, plan.disk, plan.ports, plan.write) == (1 << 20, 2 << 20, (443,), ("/w",))
    assert not any(path in ("/", "/etc", "/home", "/root", "/tmp", "/proc") for path in plan.read)
    assert (plan.uid is None) == (os.geteuid() != 0)
    other = make_plan(dataclasses.replace(spec, tenant="acme"), namespaces=True, abi=7, folder="")
    assert other.uid is None or other.uid != plan.uid


CODE = """
def run(params):
    if params.get("much"):
        return len(bytearray(1 << 30))
    with open(params["name"], params.get("mode", "r")) as file:
        return file.read()
"""


@pytest.mark.req("F3", "C28")
async def test_through_the_whole_engine(tmp_path: Path, anyio_backend: str) -> None:
    """A granted folder is there, nothing else is, memory ends where the manifest says, and `plugins info` tells."""
    folder, data = tmp_path / "plugins" / "p", tmp_path / ".eventcore" / "data" / "p" / "data"
    data.mkdir(parents=True)
    (data / "in.txt").write_text("hello")
    (data / "link").symlink_to(tmp_path / "eventcore.toml")
    limits = {"max_memory_mb": 96, "file_access": ["./data/"]}
    record(folder, resources=limits, permissions={"required": ["read_files"]})
    (folder / "handler.py").write_text(CODE)
    (tmp_path / "eventcore.toml").write_text('[store]\nurl = "memory:"\n')
    async with EventCore(tmp_path) as core:
        with pytest.raises(InvalidInput, match="filesystem_read"):
            await core.plugins.enable("p")
        await core.plugins.enable("p", grants=["filesystem_read"])
        assert await core.plugins.run("p", {"name": "./data/in.txt"}) == "hello"
        elsewhere = (
            "./data/../../../../eventcore.toml",
            "./data/link",
            "/etc/passwd",
            str(tmp_path / "eventcore.toml"),
        )
        for name in elsewhere:
            with pytest.raises(PluginFailed, match=r"\[Errno (2|13)\]"):
                await core.plugins.run("p", {"name": name})
        with pytest.raises(PluginFailed, match=r"\[Errno (13|30)\]"):
            await core.plugins.run("p", {"name": "./data/new", "mode": "w"})
        with pytest.raises(PluginFailed, match="96 MiB of memory") as caught:
            await core.plugins.run("p", {"much": True})
        assert caught.value.details["limit"] == "memory"
        told = await core.plugins.calls.rules.enforcement(core.plugins.get("p"), 30)
        assert told["level"] in ("full", "reduced")
        assert {
            "limit": "memory",
            "value": "96 MiB",
            "by": "RLIMIT_AS, RLIMIT_DATA",
            "source": "manifest",
        } in told["limits"]


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


pytestmark = pytest.mark.anyio
