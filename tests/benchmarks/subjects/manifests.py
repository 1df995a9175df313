"""Lists 1,000 plugins, and reads and parses their manifests: python manifests.py FOLDER.

The manifests are of four sorts in equal parts: small, with a command and a schema, without a name (seed 000's flavour),
and with permissions, limits, dependencies and settings; 300 to 900 bytes each, in five categories.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from eventcore.home.discovery import find_plugins
from eventcore.plugins.manifest_index import ManifestIndex
from eventcore.plugins.registry import PluginRegistry

COUNT = 1000
CATEGORIES = ("ai", "automation", "core", "examples", "integrations")

NAMELESS = {
    "plugin_api_version": "1.0",
    "required_roles": ["user", "admin"],
    "trusted_ui": False,
    "module": "handler",
    "enable_external_workflow": True,
    "workflow_slug": "after_it",
}
SMALL = {
    "version": "1.0.0",
    "description": "One intent, one answer",
    "author": "Somebody",
    "license": "MIT",
    "plugin_type": "example",
    "module": "some_host.plugins.this_one.handler",
    "entry_point": "run",
    "plugin_api_version": "1.0",
    "required_roles": ["user"],
    "trusted_ui": False,
    "enable_external_workflow": False,
    "sandbox_required": True,
    "tags": ["example"],
    "category": "examples",
    "dependencies": [],
    "compatibility": {},
}
COMMAND = {
    **SMALL,
    "module": "handler",
    "plugin_api_version": "1.1",
    "hooks": ["on_command"],
    "commands": [{"name": "/calc", "description": "Work out an expression", "usage": "/calc 2*(3+4)"}],
    "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
LARGE = {
    "version": "2.3.1",
    "description": "Watches a mailbox and files what comes in",
    "author": "Ada <ada@example.org>",
    "license": "MIT",
    "plugin_type": "automation",
    "module": "handler",
    "plugin_api_version": "1.1",
    "required_roles": ["user"],
    "tags": ["mail", "automation"],
    "permissions": {"data_access": ["read"], "network_access": ["mail.example.org"]},
    "resource_limits": {"max_memory_mb": 128, "timeout_seconds": 20},
    "dependencies": {"python_packages": ["requests>=2.31"], "plugins": []},
    "config_schema": {"host": {"type": "string", "required": True}, "port": {"type": "integer", "default": 993}},
}


def write(root: Path) -> None:
    for number in range(COUNT):
        name = f"plugin-{number:04d}"
        kind: dict[str, Any] = (SMALL, COMMAND, NAMELESS, LARGE)[number % 4]
        body = {**kind, "intent": f"intent_{number}"}
        if kind is not NAMELESS:
            body["name"] = name
        folder = root / CATEGORIES[number % len(CATEGORIES)] / name
        folder.mkdir(parents=True)
        (folder / "plugin_manifest.json").write_text(json.dumps(body, indent=2))
        (folder / "handler.py").write_text("def run(params):\n    return params\n")


def ours(root: Path, index: Path | None = None) -> PluginRegistry:
    """What opening a home does; with an index, as it is from the second time on."""
    registry = PluginRegistry(index=ManifestIndex(index))
    for found in find_plugins([root]):
        registry.discover(found.folder, found.file, found.category, "home", found.problem)
    registry.index.save()
    return registry


def plain(root: Path, loads: Callable[[bytes], Any]) -> list[Any]:
    """Find, read and parse: the least that a listing can do."""
    parsed, folders = [], [str(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name == "plugin_manifest.json":
                    with open(entry.path, "rb") as file:
                        parsed.append(loads(file.read()))
                elif entry.is_dir():
                    folders.append(entry.path)
    return parsed


def seconds(call: Callable[..., Any], *args: Any) -> float:
    began = time.perf_counter()
    result = call(*args)
    taken = time.perf_counter() - began
    count = len(result.records if isinstance(result, PluginRegistry) else result)
    assert count == COUNT, count
    return taken


def main(root: Path) -> None:
    write(root)
    wrong = [record.reason for record in ours(root) if record.state == "failed"]
    assert not wrong, wrong[:3]
    index = root.with_name("index.json")
    time.sleep(2.1)  # what has changed just now is not taken into the index
    ours(root, index)
    kept = orjson.loads(index.read_bytes())["manifests"]
    assert len(kept) == COUNT, len(kept)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        taken = {
            "ours": seconds(ours, root),
            "known": seconds(ours, root, index),
            "json": seconds(plain, root, json.loads),
            "orjson": seconds(plain, root, orjson.loads),
        }
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
