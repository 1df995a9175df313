"""A plugin's folder may hold links to the host's files, and pipes: the host reads neither."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eventcore.kernel.errors import InvalidInput, InvalidManifest, PluginFailed
from eventcore.plugins.configuration import read_defaults
from eventcore.plugins.entry_scan import scan_entry
from eventcore.plugins.manifest import read_manifest
from eventcore.plugins.packages.transit import _remove
from eventcore.plugins.plain_files import read_plain
from eventcore.plugins.python_packages import hint_at_packages
from eventcore.plugins.strict import _file

MANIFEST = "name: greeter\nversion: 1.0.0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plugin's, beside a file of the host."""
    found = tmp_path / "plugins" / "greeter"
    found.mkdir(parents=True)
    (found / "plugin.yaml").write_text(MANIFEST)
    (found / "main.py").write_text("def run(params): return 1\n")
    (tmp_path / "hosts.yml").write_text("token: s3cret-of-the-host\n")
    return found


def test_what_can_be_read(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "a.txt").write_text("12345")
    (folder / "b.txt").symlink_to("inner/a.txt")
    (folder / "out").symlink_to(folder.parent.parent)
    os.mkfifo(folder / "pipe")
    assert read_plain(folder, "inner/a.txt", 9) == b"12345"
    assert read_plain(folder, "b.txt", 3) == b"1234"
    for name in ("out/hosts.yml", "../../hosts.yml", "pipe", "inner", "nothing"):
        with pytest.raises(OSError, match=r"link|regular|No such|directory"):
            read_plain(folder, name, 9)


def test_settings_do_not_come_from_a_file_of_the_host(folder: Path) -> None:
    (folder / "config.yaml").symlink_to("../../hosts.yml")
    with pytest.raises(InvalidInput, match="a link that leads out"):
        read_defaults(folder / "config.yaml")


def test_an_error_does_not_hold_lines_of_a_file_of_the_host(folder: Path) -> None:
    (folder / "requirements.txt").symlink_to("../../hosts.yml")
    error = PluginFailed("no module", kind="ModuleNotFoundError")
    hint_at_packages(error, read_manifest(folder / "plugin.yaml"))
    assert "s3cret" not in str(error.hint)


def test_a_manifest_that_is_a_file_of_the_host_is_none(folder: Path) -> None:
    (folder / "plugin.yaml").unlink()
    (folder / "plugin.yaml").symlink_to("../../hosts.yml")
    with pytest.raises(InvalidManifest) as caught:
        read_manifest(folder / "plugin.yaml")
    assert "leads out" in str(caught.value.problems[0])
    assert "token" not in "".join(map(str, caught.value.problems))


def test_a_pipe_in_place_of_code_holds_nobody_up(folder: Path) -> None:
    manifest = read_manifest(folder / "plugin.yaml")
    (folder / "main.py").unlink()
    os.mkfifo(folder / "main.py")
    assert scan_entry(manifest) == []
    (problem,) = _file(folder / "main.py")
    assert "not a regular file" in problem.message


def test_data_is_removed_however_deep(folder: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(1100):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    _remove(folder)
    assert not folder.exists()
