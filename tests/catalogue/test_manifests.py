"""Every plugin of the catalogue has a manifest without a flaw, and the files that it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventcore.home.discovery import PluginFolder, find_plugins
from eventcore.plugins.manifest import check_folder, read_manifest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
FOUND = find_plugins([PLUGINS])


def test_the_catalogue_is_found() -> None:
    names = {folder.path.name for folder in FOUND}
    assert {"hello-world", "time-query", "basic-calculator", "text-processor", "greeter"} <= names


@pytest.mark.parametrize("folder", FOUND, ids=[folder.path.name for folder in FOUND])
def test_manifest(folder: PluginFolder) -> None:
    assert folder.problem is None
    manifest = read_manifest(folder.manifest, category=folder.category)
    assert manifest.warnings == ()
    assert manifest.extra == {}
    assert check_folder(manifest) == []
    assert manifest.slug == folder.path.name
    assert manifest.category == folder.path.relative_to(PLUGINS).parts[0]
    assert (folder.path / "README.md").is_file()


def test_no_two_share_an_intent_or_a_slug() -> None:
    manifests = [read_manifest(folder.manifest) for folder in FOUND]
    for names in ([m.slug for m in manifests], [intent for m in manifests for intent in m.intents]):
        assert len(names) == len(set(names))
