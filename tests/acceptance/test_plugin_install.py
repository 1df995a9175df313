"""D3, G2, C41, C23, C30, I3, I4: installing and uninstalling, as the commands show it."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import QuickHome

CODE = "def run(params):\n    return {'said': 'hello'}\n"


def source(folder: Path, slug: str = "box", **manifest: Any) -> Path:
    """A plugin outside the home."""
    place = folder / slug
    place.mkdir(parents=True)
    body = {"name": slug, "version": "1.0.0", "module": "handler", "category": "tools", **manifest}
    (place / "plugin_manifest.json").write_text(json.dumps(body))
    (place / "handler.py").write_text(CODE)
    return place


def packed(place: Path, kind: str) -> str:
    name = shutil.make_archive(str(place.parent / f"{place.name}-1.0.0"), kind, place.parent, place.name)
    return str(name)


def events(home: QuickHome, *types: str) -> list[str]:
    return [row["type"] for row in home.json("events", "list", "--type", "plugin_*") if row["type"] in types]


@pytest.mark.parametrize("form", ["folder", "gztar", "zip"])
def test_each_form_installs_and_uninstalls(form: str, quick: QuickHome, tmp_path: Path) -> None:
    place = source(tmp_path / "src", description="A box")
    target = str(place) if form == "folder" else packed(place, form)
    row = quick.json("plugins", "install", target, "--yes")
    assert (row["slug"], row["state"], row["version"]) == ("box", "installed", "1.0.0")
    assert (quick.root / "plugins/tools/box/handler.py").read_text() == CODE
    assert quick.json("plugins", "list", "--status", "installed")[0]["slug"] == "box"
    assert quick.run("plugins", "enable", "box").returncode == 0
    assert quick.json("run", "box")["result"] == {"said": "hello"}
    [listed] = json.loads((quick.root / "plugins/manifest.json").read_text())["plugins"]
    assert (listed["name"], listed["version"], listed["sha256"]) == ("box", "1.0.0", row["sha256"])
    again = quick.run("plugins", "install", target, "--yes")
    assert again.returncode == 2
    assert "is there already" in again.stderr

    assert quick.run("plugins", "uninstall", "box", "--yes").returncode == 0
    assert not (quick.root / "plugins/tools/box").exists()
    assert [path.name for path in (quick.root / "plugins").iterdir() if path.name.startswith(".")] == []
    assert json.loads((quick.root / "plugins/manifest.json").read_text()) == {"plugins": []}
    assert "no plugin 'box'" in quick.run("plugins", "info", "box").stderr
    told = events(quick, "plugin_installed", "plugin_enabled", "plugin_uninstalled", "plugin_unloaded")
    assert told == ["plugin_installed", "plugin_enabled", "plugin_uninstalled", "plugin_unloaded"]
    gone = quick.run("run", "box")
    assert gone.returncode == 1


@pytest.mark.req("G2")
def test_an_archive_is_checked_before_a_byte_is_written(quick: QuickHome, tmp_path: Path) -> None:
    entries: dict[str, dict[str, Any]] = {
        "../escaped": {},
        "a-link": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        "a-device": {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
        "a-bomb": {"size": 65 * 1024 * 1024},
    }
    place = source(tmp_path / "src")
    for name, about in entries.items():
        path = tmp_path / "bad.tar.gz"
        with tarfile.open(path, "w:gz", compresslevel=1) as out:
            out.add(place, "box")
            member = tarfile.TarInfo(name)
            for key, value in about.items():
                setattr(member, key, value)
            out.addfile(member, io.BytesIO(bytes(member.size)) if member.size else None)
        done = quick.run("plugins", "install", str(path), "--yes")
        assert done.returncode == 1
        assert repr(name) in done.stderr
        assert list((quick.root / "plugins").glob("**/*")) == []
    assert not (quick.root / "escaped").exists()
    for form in ("gztar", "zip"):
        assert quick.run("plugins", "install", packed(place, form), "--yes").returncode == 0
        assert quick.run("plugins", "uninstall", "box", "--yes").returncode == 0
    assert quick.run("plugins", "install", str(place), "--yes").returncode == 0


def test_permissions_are_shown_and_asked_for(quick: QuickHome, tmp_path: Path, monkeypatch: Any) -> None:
    place = source(tmp_path / "src", permissions=["chat_access"], optional_permissions=["memory_read"])
    without = quick.run("plugins", "install", str(place))
    assert without.returncode == 2
    assert "--yes" in without.stderr
    assert "chat_access" in without.stdout
    monkeypatch.setattr("eventcore.cli.packages._can_ask", lambda: True)
    answered = quick.run("plugins", "install", str(place), stdin="y\nn\ny\n")
    assert answered.returncode == 0, answered.stderr
    assert quick.json("plugins", "info", "box")["granted"] == ["chat_access"]
    assert quick.run("plugins", "enable", "box").returncode == 0


@pytest.mark.req("C41")
def test_a_copied_home_gets_back_exactly_what_its_file_lists(quick: QuickHome, tmp_path: Path) -> None:
    first, second = source(tmp_path / "src", "first"), source(quick.root / "vendor", "second")
    for target in (packed(first, "gztar"), str(second)):
        assert quick.run("plugins", "install", target, "--yes").returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(quick.root, copy, ignore=shutil.ignore_patterns(".eventcore", "tools"))
    assert sorted(path.name for path in (copy / "plugins").iterdir()) == ["manifest.json"]
    done = quick.json("--home", str(copy), "plugins", "install", "--yes")
    assert sorted(row["slug"] for row in done) == ["first", "second"]
    assert (copy / "plugins/tools/first/handler.py").read_text() == CODE
    assert (copy / "plugins/manifest.json").read_bytes() == (quick.root / "plugins/manifest.json").read_bytes()
    assert quick.json("--home", str(copy), "plugins", "install", "--yes") == []

    shutil.rmtree(copy / "plugins/tools")
    (copy / "vendor/second/handler.py").write_text("tampered = 1\n")
    failed = quick.run("--home", str(copy), "plugins", "install", "--yes")
    assert failed.returncode == 1
    assert "SHA-256" in failed.stderr
    assert (copy / "plugins/tools/first").is_dir()
    assert not (copy / "plugins/tools/second").exists()


@pytest.mark.req("C30")
def test_what_cannot_run_here_is_refused_with_the_reason(quick: QuickHome, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"python_version": ">=3.99"}, "needs Python >=3.99"),
        ({"platforms": ["windows"]}, "runs on windows"),
        ({"min_eventcore_version": "99.0"}, "needs EventCore 99.0 or newer"),
        ({"max_eventcore_version": "0.0.1"}, "needs EventCore 0.0.1 or older"),
    ]
    for number, (said, reason) in enumerate(cases):
        place = source(tmp_path / str(number), "picky", compatibility=said)
        done = quick.run("plugins", "install", str(place), "--yes")
        assert done.returncode == 2
        assert reason in done.stderr
    foreign = source(tmp_path / "lao", "foreign", compatibility={"min_lao_version": "99.0", "python_version": ">=3.8"})
    done = quick.run("plugins", "install", str(foreign), "--yes")
    assert done.returncode == 0
    assert "min_lao_version 99.0" in done.stdout


@pytest.mark.req("C23")
def test_a_missing_plugin_stops_the_install(quick: QuickHome, tmp_path: Path) -> None:
    needy = source(tmp_path / "src", "needy", dependencies=[{"name": "helper", "version": ">=2.0.0"}])
    relaxed = source(tmp_path / "src", "relaxed", dependencies=[{"name": "helper", "version": ">=2", "optional": True}])
    assert quick.run("plugins", "install", str(relaxed), "--yes").returncode == 0
    stopped = quick.run("plugins", "install", str(needy), "--yes")
    assert stopped.returncode == 2
    assert "needy needs helper >=2.0.0, which is not there" in stopped.stderr
    for version in ("1.9.0", "2.1.0"):
        helper = source(tmp_path / version, "helper", version=version)
        assert (quick.run("plugins", "install", str(helper), "--yes").returncode == 0) is True
        done = quick.run("plugins", "install", str(needy), "--yes")
        assert (done.returncode == 0) == (version == "2.1.0"), done.stderr
        if version == "1.9.0":
            assert "1.9.0 is there" in done.stderr
            quick.run("plugins", "uninstall", "helper", "--yes")
    quick.run("plugins", "enable", "needy")
    kept = quick.run("plugins", "uninstall", "helper")
    assert kept.returncode == 2
    assert "needy cannot do without helper" in kept.stderr
    assert quick.run("plugins", "uninstall", "helper", "--yes").returncode == 0


KEEPER = """
from eventcore.sdk import ctx

async def run(params):
    await ctx.db("main").execute("create table if not exists t (x)")
    await ctx.memory.write("note", {"x": 1})
    await ctx.schedule("later", after=3600)
    return {"limit": ctx.config["limit"], "notes": len(await ctx.memory.read("note"))}

def note(event):
    pass
"""
KEEPS = ["database_read", "database_write", "memory_read", "memory_write", "scheduler"]


def test_an_uninstall_keeps_data_and_purge_takes_it_along(quick: QuickHome, tmp_path: Path) -> None:
    schema = {"limit": {"type": "integer", "default": 1}}
    place = source(tmp_path / "src", config_schema=schema, permissions=KEEPS)
    (place / "handler.py").write_text(KEEPER)

    def install_and_run() -> Any:
        assert quick.run("plugins", "install", str(place), "--yes").returncode == 0
        assert quick.run("plugins", "enable", "box").returncode == 0
        return quick.json("run", "box")["result"]

    assert install_and_run() == {"limit": 1, "notes": 1}
    data = quick.root / ".eventcore/data/box"
    data.mkdir(parents=True, exist_ok=True)
    quick.run("plugins", "config", "box", "limit", "5")
    quick.run("plugins", "hook", "box", "--events", "workflow_started", "--callback", "note")
    said = quick.run("plugins", "uninstall", "box", "--yes").stdout
    assert "its data and settings are kept" in said
    assert data.is_dir()
    assert install_and_run()["limit"] == 5
    assert len(quick.json("plugins", "hook", "box", "--list")["hooks"]) == 1

    row = quick.json("plugins", "uninstall", "box", "--yes", "--purge")
    assert (row["purged"], row["forgotten"]["plans"], row["forgotten"]["databases"]) == (True, 1, 1)
    assert row["forgotten"]["hooks"] == 1
    assert not data.exists()
    assert quick.json("memory", "list")["memories"] == []
    assert quick.json("schedules", "list") == []
    assert install_and_run() == {"limit": 1, "notes": 1}
    assert quick.json("plugins", "hook", "box", "--list")["hooks"] == []


def test_an_address_or_a_name_is_told_what_to_do(quick: QuickHome) -> None:
    address = quick.run("plugins", "install", "https://plugins.example.com/box-1.0.0.tar.gz", "--yes")
    assert (address.returncode, "nothing is fetched from https://plugins.example.com" in address.stderr) == (2, True)
    assert "download it" in address.stderr
    named = quick.run("plugins", "install", "AdvancedImageProcessor", "--yes")
    assert (named.returncode, "there is no index yet" in named.stderr) == (1, True)


def test_what_was_not_installed_is_not_removed(quick: QuickHome) -> None:
    quick.plugin("mine", CODE)
    done = quick.run("plugins", "uninstall", "mine", "--yes")
    assert done.returncode == 2
    assert "was not installed" in done.stderr
    assert (quick.root / "plugins/mine/handler.py").exists()


def test_a_broken_manifest_is_named_as_the_operator_knows_it(quick: QuickHome, tmp_path: Path) -> None:
    place = source(tmp_path / "src")
    (place / "plugin_manifest.json").write_text('{"name": "box",\n "version": "one"}')
    done = quick.run("plugins", "install", str(place), "--yes")
    assert done.returncode == 1
    assert f"{place}/plugin_manifest.json:2 version" in done.stderr


@pytest.mark.req("I4")
def test_uninstall_asks_and_ends_with_plugin_unloaded(quick: QuickHome, tmp_path: Path, monkeypatch: Any) -> None:
    helper, needy = source(tmp_path, "helper"), source(tmp_path, "needy", dependencies=[{"name": "helper"}])
    for place in (helper, needy):
        assert quick.run("plugins", "install", str(place), "--yes").returncode == 0
        quick.run("plugins", "enable", place.name)
    monkeypatch.setattr("eventcore.cli.packages._can_ask", lambda: True)
    kept = quick.run("plugins", "uninstall", "helper", stdin="n\n")
    assert "needy cannot do without helper" in kept.stderr
    assert (quick.root / "plugins/tools/helper").is_dir()
    assert quick.run("plugins", "uninstall", "helper", stdin="y\n").returncode == 0
    assert quick.run("plugins", "uninstall", "needy").returncode == 0, "nothing needs it, so nothing is asked"
    assert quick.json("events", "list", "--type", "plugin_*")[-1]["type"] == "plugin_unloaded"
    assert quick.json("plugins", "list", "--category", "tools") == []
