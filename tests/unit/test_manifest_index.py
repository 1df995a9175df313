"""The index of manifests that were found good: what is unchanged is not read, whatever has changed is."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from eventcore.home.discovery import find_plugins
from eventcore.plugins import manifest_index, registry
from eventcore.plugins.manifest_index import ManifestIndex
from eventcore.plugins.registry import PluginRegistry


class Place:
    """A folder of plugins, and an index beside it. Counts the manifests that discovery reads."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.index = root / "plugins", root / "index.json"
        self.read: list[str] = []
        self._really = registry.read_manifest
        monkeypatch.setattr(registry, "read_manifest", self._counted)
        # Files of tests are always new; as if they had been there for an hour.
        monkeypatch.setattr(registry.time, "time_ns", lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) + 3600 * 10**9)

    def _counted(self, path: str, **more: Any) -> Any:
        self.read.append(Path(path).parent.name)
        return self._really(path, **more)

    def plugin(self, folder: str, **body: Any) -> Path:
        path = self.root / folder / "plugin_manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": folder, "version": "1.0.0", "module": "handler", **body}))
        return path

    def tick(self) -> None:
        """Until a change has another time than one before: two within the file system's grain look like one."""
        probe = self.root.parent / "probe"
        probe.touch()
        began = probe.stat().st_ctime_ns
        while probe.stat().st_ctime_ns == began:
            probe.chmod(0o600)

    def discover(self) -> PluginRegistry:
        self.read.clear()
        found = PluginRegistry(index=ManifestIndex(self.index))
        for one in find_plugins([self.root]):
            found.discover(one.folder, one.file, one.category, "home", one.problem)
        found.index.save()
        return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_what_is_unchanged_is_read_when_it_is_asked_for(place: Place) -> None:
    place.plugin("one")
    place.plugin("two", name="TwoOfThem")
    assert sorted(place.discover().records) == ["one", "two-of-them"]
    assert place.read == ["one", "two"]
    again = place.discover()
    assert sorted(again.records) == ["one", "two-of-them"]
    assert place.read == []
    record = again.records["two-of-them"]
    assert record.described().name == "TwoOfThem"
    assert record.described() is record.manifest
    assert place.read == ["two"]


def test_whatever_changes_is_read_again(place: Place) -> None:
    path = place.plugin("one", version="1.0.0")
    place.discover()
    place.tick()
    path.write_text(path.read_text().replace("1.0.0", "1.0.1"))  # the same size
    assert place.discover().records["one"].described().version == "1.0.1"
    assert place.read == ["one"]
    before = path.stat()
    place.tick()
    path.write_text(path.read_text().replace("1.0.1", "1.0.2"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # put back as if nothing had been
    assert place.discover().records["one"].described().version == "1.0.2"
    half = path.with_name("half")
    half.write_text(path.read_text())
    half.replace(path)  # another inode
    place.discover()
    assert place.read == ["one"]


def test_what_was_broken_is_read_every_time(place: Place) -> None:
    place.plugin("broken", version="one")
    for _ in range(2):
        assert place.discover().records["broken"].state == "failed"
        assert place.read == ["broken"]


def test_what_breaks_between_looking_and_reading_fails_alone(place: Place) -> None:
    path = place.plugin("one")
    place.plugin("other")
    place.discover()
    again = place.discover()
    path.write_text("{")
    record = again.records["one"]
    assert record.manifest is None
    assert record.state == "failed"
    assert "plugin_manifest.json" in str(record.reason)
    assert again.records["other"].described().slug == "other"
    renamed = place.discover().records["other"]
    place.plugin("other", name="quite-another")
    assert renamed.manifest is None
    assert "is another" in str(renamed.reason)


def test_what_changed_just_now_is_not_taken_in(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.plugin("one")
    monkeypatch.setattr(registry.time, "time_ns", lambda: path.stat().st_mtime_ns + 10**9)
    place.discover()
    place.discover()
    assert place.read == ["one"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"code": 1}', b'{"code": "CODE", "manifests": {"x": [1]}}'])
def test_a_damaged_index_costs_a_reading(damage: bytes, place: Place) -> None:
    place.plugin("one")
    place.discover()
    place.index.write_bytes(damage.replace(b"CODE", manifest_index._code().encode()))
    assert list(place.discover().records) == ["one"]
    assert place.read == ["one"]
    place.discover()
    assert place.read == []


def test_other_code_makes_it_void(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.plugin("one")
    place.discover()
    monkeypatch.setattr(manifest_index, "_code", lambda: "newer")
    place.discover()
    assert place.read == ["one"]
    place.discover()
    assert place.read == []


def test_what_is_gone_is_forgotten(place: Place) -> None:
    path = place.plugin("one")
    place.plugin("two")
    place.discover()
    path.unlink()
    assert list(place.discover().records) == ["two"]
    assert [Path(name).parent.name for name in json.loads(place.index.read_bytes())["manifests"]] == ["two"]
