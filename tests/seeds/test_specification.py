"""The third seed: a plugin specification. Each test is one of its examples or tables; text and data are ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eventcore import PluginRouter
from eventcore.kernel.errors import InvalidManifest
from eventcore.plugins.manifest import read_manifest
from eventcore.testing import HomeKit
from tests.acceptance.conftest import HomeFolder

pytestmark = pytest.mark.anyio

MANIFEST: dict[str, Any] = {
    "name": "hello-world",
    "version": "1.0.0",
    "description": "Says hello",
    "author": "Somebody",
    "plugin_type": "custom",
    "module": "ai_karen_engine.plugins.hello_world.handler",
    "entry_point": "run",
    "plugin_api_version": "1.0",
    "intent": "hello_world",
    "required_roles": ["user"],
    "trusted_ui": False,
    "enable_external_workflow": False,
    "sandbox_required": True,
    "tags": ["example"],
    "category": "utility",
    "dependencies": [],
    "compatibility": {},
}


def write(root: Path, manifest: dict[str, Any]) -> Path:
    return HomeFolder(root).write("plugins/hello-world/plugin_manifest.json", json.dumps(manifest, indent=2))


async def test_the_example(eventcore_home: HomeKit) -> None:
    write(eventcore_home.root, MANIFEST)
    code = 'def run(params: dict) -> dict:\n    return {"message": "Hello from the plugin!"}\n'
    (eventcore_home / "plugins/hello-world/handler.py").write_text(code)
    router = PluginRouter()
    assert await router.dispatch("hello_world", {}, ["user"]) == {"message": "Hello from the plugin!"}
    record = router.get_plugin("hello-world")
    assert record is not None
    assert record.module_name == MANIFEST["module"]
    assert record.manifest["sandbox_required"] is True


async def test_a_text_is_a_result_too_and_async_is_supported(eventcore_home: HomeKit) -> None:
    folder = HomeFolder(eventcore_home.root)
    folder.plugin("says-text", "async def run(params: dict) -> str:\n    return 'hi ' + params['name']")
    assert await PluginRouter().dispatch("says-text", {"name": "Ada"}) == "hi Ada"


def test_every_field_of_the_table_is_read(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, MANIFEST))
    assert manifest.extra == {}
    assert (manifest.dialect, manifest.name, manifest.plugin_type) == ("J2", "hello-world", "custom")
    assert (manifest.entry_point, manifest.entry_file, manifest.required_roles) == ("run", "handler.py", ("user",))
    assert (manifest.trusted_ui, manifest.enable_external_workflow) == (False, False)
    assert manifest.sandbox.required is True
    assert (manifest.license, manifest.license_text) == ("MIT", "MIT (default)")
    assert (manifest.tags, manifest.category, manifest.intents) == (("example",), "utility", ("hello_world",))


def test_extra_keys_are_kept_and_both_api_versions_read(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, {**MANIFEST, "plugin_api_version": "1.1", "x_mine": {"a": 1}}))
    assert (manifest.api_version, manifest.extra) == ("1.1", {"x_mine": {"a": 1}})


@pytest.mark.parametrize("key", ["version", "module"])
def test_a_missing_required_key_is_named(tmp_path: Path, key: str) -> None:
    body = {name: value for name, value in MANIFEST.items() if name != key}
    with pytest.raises(InvalidManifest, match=key):
        read_manifest(write(tmp_path, body))


def test_an_unknown_api_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="plugin_api_version"):
        read_manifest(write(tmp_path, {**MANIFEST, "plugin_api_version": "2.0"}))
