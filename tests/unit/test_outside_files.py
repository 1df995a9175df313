"""Files that plugins hand over: read by the host, beneath the granted folders, whatever a plugin puts there."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from eventcore.kernel.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from eventcore.plugins.outside.beneath import NewFile, open_beneath, reading
from tests.unit.outside import opened, refusals

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="openat2 is Linux's; run the tests there"),
]

CODE = """
from eventcore.sdk import PluginError, ctx
async def run(params):
    if "text" in params:
        with open(params["path"], "w") as file:
            file.write(params["text"])
    try:
        return await ctx.file(params["path"])
    except PluginError as error:
        return [error.code, str(error)]
"""
WRITER: dict[str, Any] = {"permissions": ["filesystem_write"]}


async def test_a_file_as_a_result(tmp_path: Path) -> None:
    async with opened(tmp_path, {}, code=CODE, manifest=WRITER) as core:
        found = await core.plugins.run("asker", {"path": "report.csv", "text": "a,b\n"})
        assert found["file"] == {
            "plugin": "asker",
            "path": "report.csv",
            "size": 4,
            "sha256": hashlib.sha256(b"a,b\n").hexdigest(),
            "media_type": "text/csv",
        }
        assert await core.plugins.read_file(found) == b"a,b\n"
        await core.plugins.run("asker", {"path": "report.csv", "text": "other"})
        with pytest.raises(Conflict, match="is not what it was"):
            await core.plugins.read_file(found)
        (tmp_path / ".eventcore" / "data" / "asker" / "report.csv").unlink()
        with pytest.raises(NotFound, match="there is no file"):
            await core.plugins.read_file(found)


async def test_no_link_and_no_path_leads_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    async with opened(tmp_path, {}, code=CODE, manifest=WRITER) as core:
        data = tmp_path / ".eventcore" / "data" / "asker"
        (data / "link").symlink_to(tmp_path / "secret")
        (data / "folder").symlink_to(tmp_path)
        os.mkfifo(data / "pipe")
        tries = {
            "link": "invalid_input",
            "folder/secret": "invalid_input",
            "../../../secret": "permission_denied",
            str(tmp_path / "secret"): "permission_denied",
            "pipe": "invalid_input",
            ".": "permission_denied",
            "none": "not_found",
            "a\0b": "invalid_input",
        }
        for path, code in tries.items():
            said = await core.plugins.run("asker", {"path": path})
            assert said[0] == code, (path, said)
            with pytest.raises((InvalidInput, PermissionDenied, NotFound)):
                await core.plugins.files.content(core.plugins.get("asker"), path)
        assert {row["path"] for row in await refusals(core)} == {
            path for path, code in tries.items() if code == "permission_denied"
        }


async def test_it_needs_a_grant(tmp_path: Path) -> None:
    async with opened(tmp_path, {}, code=CODE, manifest={"permissions": []}) as core:
        assert (await core.plugins.run("asker", {"path": "x"}))[0] == "permission_denied"
        assert (await refusals(core))[0]["permission"] == "filesystem_read"
        for wrong in ({}, {"file": 1}, {"file": {"plugin": "asker"}}):
            with pytest.raises(InvalidInput, match="no reference to a file"):
                await core.plugins.read_file(wrong)


def test_beneath(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "file").write_text("here")
    (tmp_path / "out").write_text("no")
    (root / "up").symlink_to("..")
    (root / "same").symlink_to("in/file")
    fd = open_beneath(root, "in/../in/file", os.O_RDONLY)
    assert os.read(fd, 10) == b"here"
    os.close(fd)
    for path in ("../out", "in/../../out", "up/out", "same", str(tmp_path / "out")):
        with pytest.raises(InvalidInput, match="leads out of the folders"):
            open_beneath(root, path, os.O_RDONLY)
    with pytest.raises(InvalidInput, match="4 bytes large"), reading(root, "in/file", 3):
        pass
    with pytest.raises(InvalidInput, match="no regular file"), reading(root, "in", 3):
        pass


def test_a_new_file_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "out" / "target")
    with NewFile(root, "half") as file:
        file.write(b"half")  # and then nobody finishes it
    assert sorted(path.name for path in root.iterdir()) == ["link"]
    with NewFile(root, "link") as file:  # it takes the link's place, and does not follow it
        file.write(b"whole")
        file.finish()
    assert (root / "link").read_bytes() == b"whole"
    assert not (root / "link").is_symlink()
    assert list((tmp_path / "out").iterdir()) == []
    for wrong in ("", ".", "..", "a/"):
        with pytest.raises((InvalidInput, NotFound)):
            NewFile(root, wrong)


async def test_folders_that_the_operator_grants(tmp_path: Path) -> None:
    more, state = tmp_path / "more", tmp_path / ".eventcore"
    more.mkdir()
    async with opened(tmp_path, {"write": [str(more)]}, code=CODE, manifest=WRITER) as core:
        found = await core.plugins.run("asker", {"path": f"{more}/made", "text": "x"})
        assert await core.plugins.read_file(found) == b"x"
        rules = core.plugins.calls.rules
        record = core.plugins.get("asker")
        for wrong, says in (
            ("more", "no absolute path"),
            (str(tmp_path), "engine's own"),
            (str(more / "no"), "not there"),
        ):
            scope = core.engine.settings.plugins.scopes["asker"].model_copy(update={"write": (wrong,)})
            rules._scopes = {"asker": scope}
            with pytest.raises(InvalidInput, match=says):
                rules.allowance(record)
    assert state.exists()
