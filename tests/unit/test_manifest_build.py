"""What the reader builds without pydantic's validation is what pydantic's validation lets pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventcore.home.discovery import find_plugins
from eventcore.plugins.manifest import PluginManifest, SandboxWish, parse_manifest, read_manifest

PLUGINS = Path(__file__).parents[2] / "plugins"

#: Every key that ends in a field, so that no check can put a wrong type where nothing looks any more.
FULL = """
name: full-house
version: 1.2.3-rc.1
description: Everything at once
author: Ada <ada@example.org>
license: BSD-3-Clause
repository: https://example.org/repo
homepage: https://example.org
plugin_api_version: "1.1"
plugin_type: ai-model
intents: [one, two]
module: house
main: main.py
class: House
entry_point: start
required_roles: [user]
trusted_ui: true
enable_external_workflow: true
workflow_slug: after_it
sandbox: {type: docker, image: a, network: none, volumes: [v], security_opt: [s], cap_drop: [c], user: u,
  working_dir: /w, env_whitelist: [E], memory: 512m, cpu_shares: 5}
sandbox_required: true
docker_image: b
dependencies: {python_packages: [requests>=2.31], system_services: [redis], external_apis: [mail]}
plugin_dependencies: [other>=1.0, {name: third, optional: true}]
permissions: {required: [files], optional: [memory_read, scheduler], data_access: [read],
  network_access: [a.example.org], external_apis: [api], database_access: [main]}
resource_limits: {max_memory_mb: 64, max_cpu_percent: 50, timeout_seconds: 3, network_access: true,
  file_access: [./data/]}
monitoring: {enable_metrics: false, enable_logging: true, log_level: DEBUG}
compatibility: {python: ">=3.11"}
min_eventcore_version: "1"
tags: [a]
keywords: [b]
category: ai
categories: [c]
hooks: [on_message, on_command]
stages: {on_message: gate}
commands: [{name: /go, description: d, usage: u}]
config_schema: {host: {type: string, required: true}}
capabilities: [{name: see, description: d, input_type: image, output_type: text}]
input_schema: {type: object}
output_schema: {type: object}
events: {emits: [full-house.done], durable: [order_created], removed: [old]}
fallback: other
marketplace: {support_url: "https://example.org/s", documentation_url: "https://example.org/d", price: 1}
something_else: [1, {x: 2}]
verison: typo
"""
LEAST = '{"name": "least", "version": "1.0.0", "module": "handler"}'


def validated(manifest: PluginManifest) -> PluginManifest:
    """The same manifest through pydantic, parts included; nothing is coerced."""
    fields = {name: value for name, value in manifest if name != "warnings"}
    parts = PluginManifest.model_validate(manifest.model_dump(exclude={"warnings"}))
    whole = PluginManifest.model_validate(fields, strict=True)
    assert parts == whole
    return whole.model_copy(update={"warnings": manifest.warnings})


@pytest.mark.parametrize("file", [found.file for found in find_plugins([PLUGINS])], ids=lambda file: file[-60:])
def test_the_catalogue_is_built_as_it_would_be_validated(file: str) -> None:
    manifest = read_manifest(file)
    assert validated(manifest) == manifest
    assert list(dict(manifest)) == list(PluginManifest.model_fields)


def test_a_manifest_with_every_key_is_built_as_it_would_be_validated(tmp_path: Path) -> None:
    manifest = parse_manifest(FULL, "plugin.yaml", "yaml", str(tmp_path))
    assert validated(manifest) == manifest
    blank = parse_manifest(LEAST, "plugin_manifest.json", "json", str(tmp_path))
    unfilled = {name for name, value in manifest if value == getattr(blank, name)}
    assert not unfilled, "FULL should say something else here than the default"


def test_parts_are_models_with_defaults_of_their_own(tmp_path: Path) -> None:
    text = '{"name": "a", "version": "1.0.0", "module": "handler", "sandbox_required": true}'
    manifest = parse_manifest(text, "plugin_manifest.json", "json", str(tmp_path))
    assert manifest.sandbox == SandboxWish(required=True)
    assert manifest.model_fields_set >= {"name", "version", "sandbox"}
    assert "description" not in manifest.model_fields_set


def test_manifests_share_no_table(tmp_path: Path) -> None:
    one, other = (parse_manifest(LEAST, "plugin_manifest.json", "json", str(tmp_path)) for _ in range(2))
    tables: list[tuple[str, Any]] = [(name, value) for name, value in one if isinstance(value, dict)]
    assert len(tables) == 4
    assert not [name for name, table in tables if table is getattr(other, name)]
