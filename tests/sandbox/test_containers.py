"""The container tier on a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore.kernel.errors import Interrupted, PluginFailed, PluginTimeout
from tests.sandbox.podman import IMAGE, client, podman
from tests.unit.outside import opened

pytestmark = pytest.mark.anyio

CODE = """
import os, socket, sys, time
from eventcore.sdk import ctx
def run(params):
    return eval(params["do"])
"""
MANIFEST: dict[str, Any] = {"permissions": [], "sandbox": {"type": "container"}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with podman(tmp_path_factory.mktemp("podman")) as socket:
        yield socket


def settings(engine: str, **more: Any) -> dict[str, Any]:
    return {
        "containers": {"socket": engine, "image": IMAGE, "stop_timeout": 3, **more},
        "sandbox": {"tier": "container"},
    }


def containers(engine: str) -> list[dict[str, Any]]:
    with client(engine) as http:
        found: list[dict[str, Any]] = http.get("/v1.41/containers/json", params={"all": "true"}).json()
        return found


@pytest.fixture(autouse=True)
def readable(tmp_path: Path) -> None:
    for place in (tmp_path, *tmp_path.parents):
        if place.is_relative_to("/tmp") and place != Path("/tmp"):
            place.chmod(place.stat().st_mode | 0o055)


async def test_a_call_in_a_container(tmp_path: Path, engine: str) -> None:
    async with opened(tmp_path, {}, code=CODE, manifest={"permissions": []}, **settings(engine)) as core:

        async def do(text: str) -> Any:
            return await core.plugins.run("asker", {"do": text})

        assert await do("1 + 1") == 2
        assert await do("os.getcwd()") == "/workspace"
