"""`ctx.run`: programs that the operator lists, each in a sandbox of its own. Real programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.outside.lookup import find
from tests.unit.outside import opened, refusals

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
]

CODE = """
from eventcore.sdk import PluginError, ctx
import os, subprocess

async def run(params):
    try:
        done = await ctx.run(params["command"], **params.get("more", {}))
        return [done.code, done.text, done.stderr.decode(), done.cut]
    except PluginError as error:
        return [error.code, str(error)]
"""


async def run(core: EventCore, *command: str, **more: Any) -> list[Any]:
    found: list[Any] = await core.plugins.run("asker", {"command": list(command), "more": more}, timeout=60)
    return found


def wanted(*permissions: str) -> dict[str, Any]:
    return {"permissions": ["system_access", *permissions]}


@pytest.mark.req("F8")
@pytest.mark.skipif(not shutil.which("git"), reason="needs git: make system")
async def test_a_listed_program_runs_and_no_other_one(tmp_path: Path) -> None:
    code = (
        CODE
        + "\nimport os\ndef on_probe(event): ...\n"
        + (
            "async def run_inside(params): return os.system('id')\n"
            "_run = run\n"
            "async def run(params):\n"
            "    if params.get('inside'):\n"
            "        try:\n"
            "            return os.system('id')\n"
            "        except OSError as error:\n"
            "            return repr(error)\n"
            "    return await _run(params)\n"
        )
    )
    manifest = wanted("filesystem_write")
    async with opened(tmp_path, {"programs": ["git"]}, code=code, manifest=manifest) as core:
        data = tmp_path / ".eventcore" / "data" / "asker"
        subprocess.run(["git", "init", "-q", "-b", "main", str(data)], check=True)
        (data / "new.txt").write_text("x")
        code_, out, err, cut = await run(core, "git", "status", "--short")
        assert (code_, out, err, cut) == (0, "?? new.txt\n", "", False)
        refused = await run(core, "id")
        assert refused[0] == "permission_denied"
        [recorded] = await refusals(core)
        assert (recorded["plugin"], recorded["program"]) == ("asker", "id")
        inside = await core.plugins.run("asker", {"inside": True})
        assert inside not in (0, "0"), "os.system ran in the sandbox"


async def test_input_output_environment_and_code(tmp_path: Path) -> None:
    async with opened(tmp_path, {"programs": ["cat", "env", "sh", "false"]}, code=CODE, manifest=wanted()) as core:
        assert await run(core, "cat", input="grüße") == [0, "grüße", "", False]
        assert await run(core, "false") == [1, "", "", False]
        assert (await run(core, "sh", "-c", "echo no >&2; exit 7"))[:3] == [7, "", "no\n"]
        names = {line.partition("=")[0] for line in (await run(core, "env", env={"MINE": "1"}))[1].splitlines()}
        assert names - {"PWD", "SHLVL", "_", "TZ"} == {"PATH", "LANG", "HOME", "TMPDIR", "MINE"}
        assert (await run(core, "cat", env={"LD_PRELOAD": "/x"}))[0] == "invalid_input"
        assert (await run(core, "sh", "-c", "/usr/bin/id"))[0] == 126  # it is not listed
        assert (await run(core, "sh", "-c", "cat </dev/null && false"))[0] == 1  # both are


async def test_what_it_writes_is_cut_and_a_time_over_kills_its_tree(tmp_path: Path) -> None:
    programs = {"max_output": 2048, "timeout": 40}
    scope = {"programs": ["sh", "sleep", "head"]}
    async with opened(tmp_path, scope, code=CODE, manifest=wanted(), programs=programs) as core:
        code, out, _, cut = await run(core, "head", "-c", "3000000", "/dev/zero")
        assert (code, len(out), cut) == (0, 2048, True)
        marker = f"31{os.getpid()}"
        found = await run(core, "sh", "-c", f"sleep {marker}", timeout=0.5)
        assert (found[0], "ran over its 0.5 s" in found[1]) == ("request_failed", True)
        with anyio.fail_after(20):
            while sleeping(marker):
                await anyio.sleep(0.02)


async def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    if not shutil.which("setsid"):
        pytest.skip("needs setsid (util-linux)")
    marker = f"32{os.getpid()}"
    scope = {"programs": ["sh", "sleep", "setsid"]}
    async with opened(tmp_path, scope, code=CODE, manifest=wanted()) as core:
        command = f"for i in 1 2 3; do setsid sleep {marker} & done; sleep 0.2; echo done"
        # Well, and not for having run over: it does not wait for those who hold its output open.
        assert (await run(core, "sh", "-c", command))[:2] == [0, "done\n"]
        with anyio.fail_after(20):
            while sleeping(marker):
                await anyio.sleep(0.02)


def sleeping(marker: str) -> list[str]:
    """Processes whose command line holds a word that only a test's own have."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words:
            found.append(str(place))
    return found


async def test_it_reaches_only_what_its_plugin_reaches(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    more = tmp_path / "more"
    more.mkdir()
    (more / "in").write_text("granted")
    scope = {"programs": ["cat", "touch"], "read": [str(more)]}
    manifest = wanted("filesystem_read")
    async with opened(tmp_path, scope, code=CODE, manifest=manifest) as core:
        assert (await run(core, "cat", str(more / "in")))[1] == "granted"
        for path in (str(tmp_path / "secret"), "/etc/shadow", str(tmp_path / "eventcore.toml"), "/proc/self/environ"):
            code, out, _, _ = await run(core, "cat", path)
            assert (code, out) == (1, ""), path
        assert (await run(core, "touch", str(more / "out")))[0] == 1


async def test_grants_and_lists_are_asked_before_anything_runs(tmp_path: Path) -> None:
    async with opened(tmp_path, {"programs": ["cat"]}, code=CODE, manifest={"permissions": []}) as core:
        found = await run(core, "cat")
        assert (found[0], (await refusals(core))[0]["permission"]) == ("permission_denied", "system_access")


async def test_programs_to_start_inside_the_sandbox(tmp_path: Path) -> None:
    code = """
import subprocess
def run(params):
    found = []
    for program in params["programs"]:
        try:
            found.append(subprocess.run([program], capture_output=True, text=True).stdout)
        except OSError as error:
            found.append(type(error).__name__)
    return found
"""
    async with opened(tmp_path, {"execute": ["echo"]}, code=code, manifest=wanted()) as core:
        found = await core.plugins.run("asker", {"programs": [shutil.which("echo"), "/usr/bin/id"]})
        assert found[0] == "\n"
        assert found[1] in ("PermissionError", "FileNotFoundError")
        [info] = [
            row
            for row in (await core.plugins.calls.rules.enforcement(core.plugins.get("asker"), 1))["limits"]
            if row["limit"] == "processes"
        ]
        assert "pid namespace" in info["by"]


NO_COMMANDS: list[tuple[dict[str, Any], str]] = [
    ({"command": "git status"}, "is a list of texts"),
    ({"command": []}, "is a list of texts"),
    ({"command": ["cat", "a\0b"]}, "has at most 256 words"),
    ({"command": ["cat"], "env": {"A": 1}}, "is a table of texts"),
    ({"command": ["cat"], "input": "?"}, "not in base64"),
]


async def test_what_is_no_command(tmp_path: Path) -> None:
    code = """
from eventcore.sdk import PluginError, ctx
async def run(params):
    try:
        return await ctx.ask("run", **params["given"])
    except PluginError as error:
        return [error.code, str(error)]
"""
    async with opened(tmp_path, {"programs": ["cat"]}, code=code, manifest=wanted()) as core:
        for given, says in NO_COMMANDS:
            said, text = await core.plugins.run("asker", {"given": given})
            assert said == "invalid_input"
            assert says in text


def test_looking_up(tmp_path: Path) -> None:
    script, env, plain = tmp_path / "script", tmp_path / "env-script", tmp_path / "plain"
    script.write_text("#!/bin/sh\necho hi\n")
    env.write_text("#!/usr/bin/env python3\n")
    plain.write_text("x")
    script.chmod(0o755)
    env.chmod(0o755)
    found = find("script", (str(tmp_path),))
    assert found.executes == (str(script), os.path.realpath("/bin/sh"))
    for wrong, says in (
        ("a/b", "neither a name"),
        ("nope", "there is no program"),
        (str(plain), "there is no program"),
    ):
        with pytest.raises(InvalidInput, match=says):
            find(wrong, (str(tmp_path),))
    with pytest.raises(InvalidInput, match="run by env"):
        find(str(env), ())
