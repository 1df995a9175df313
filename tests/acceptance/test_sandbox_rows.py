"""Rows about the sandbox: what is filtered and limited, and what manifests say about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eventcore import EventCore
from eventcore.kernel.errors import PluginFailed
from tests.acceptance.conftest import QuickHome
from tests.sandbox import masked
from tests.sandbox.sdk_alone import ALONE, copied_sdk

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
]
ASK = "def run(params):\n    return eval(params['do'], globals())\n"
IMPORTS = "import ctypes, errno, os, signal, subprocess, sys, threading, time\n"


def without(home: QuickHome, calls: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """`eventcore WORDS` on a kernel that lacks these calls."""
    return subprocess.run(
        [sys.executable, masked.__file__, *calls, "--", "-m", "eventcore", *words],
        cwd=home.root,
        capture_output=True,
        text=True,
        timeout=300,
    )


def error_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What `--json` prints last; warnings may stand before it."""
    assert done.returncode != 0
    error: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
    return error


FILTERED = """
import ctypes, os, platform
LIBC = ctypes.CDLL(None, use_errno=True)
CALLS = {"ptrace": (101, 117), "mount": (165, 40), "bpf": (321, 280), "unshare": (272, 97), "init_module": (175, 105),
         "keyctl": (250, 219), "perf_event_open": (298, 241), "reboot": (169, 142), "swapon": (167, 224),
         "io_uring_setup": (425, 425), "process_vm_readv": (310, 270), "kexec_load": (246, 104)}
def run(params):
    said = {}
    for name, numbers in CALLS.items():
        result = LIBC.syscall(numbers[platform.machine() != "x86_64"], 0, 0, 0, 0, 0, 0)
        said[name] = os.strerror(ctypes.get_errno()) if result < 0 else result
    return said
"""


@pytest.mark.req("F13")
def test_system_calls_are_filtered_and_what_needs_more_is_refused_with_a_list(quick: QuickHome) -> None:
    quick.plugin("asker", FILTERED)
    assert quick.run("plugins", "enable", "asker").returncode == 0
    said = quick.json("run", "asker")["result"]
    assert {name: text for name, text in said.items() if text != "Operation not permitted"} == {}
    shown = quick.run("sandbox", "check").stdout
    assert all(means in shown for means in ("seccomp", "landlock", "pidfd", "no_new_privs", "rlimits"))
    assert "not stopped:" in shown
    assert {row["name"] for row in quick.json("sandbox", "check")["means"] if row["works"]} >= {"seccomp", "landlock"}

    quick.plugin("another", ASK)
    refused = without(quick, ["landlock_create_ruleset", "pidfd_open"], "plugins", "enable", "another", "--json")
    error = error_of(refused)
    assert error["code"] == "sandbox_unavailable"
    assert {"landlock", "pidfd"} <= {row["name"] for row in error["details"]["missing"]}
    assert "landlock, pidfd" in error["message"]
    assert "CONFIG_SECURITY_LANDLOCK" in error["hint"]
    listed = without(quick, ["landlock_create_ruleset"], "sandbox", "check")
    assert listed.returncode != 0
    assert "missing" in listed.stdout


def test_a_manifest_whose_grants_need_namespaces_is_refused_without(quick: QuickHome) -> None:
    quick.plugin("runner", ASK, permissions=["system_access"])
    quick.settings('[plugins.grants]\nrunner = ["system_access"]\n[plugins.scopes.runner]\nexecute = ["/bin/sh"]\n')
    done = without(quick, ["unshare"], "plugins", "enable", "runner", "--json")
    error = error_of(done)
    assert {"pid namespace", "mount namespace"} <= {row["name"] for row in error["details"]["missing"]}


LIMITED = (
    IMPORTS
    + """
def run(params):
    do = params["do"]
    if do == "memory":
        return len(bytearray(1 << 30))
    if do == "burn":
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() - began < params["seconds"]: pass
        return (time.process_time() - used) / (time.monotonic() - began)
    if do == "deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        subprocess.Popen(["/bin/sleep", params["word"]], start_new_session=True)
        while True: time.sleep(1)
    if do == "disk":
        with open(os.environ["TMPDIR"] + "/big", "wb") as file:
            for _ in range(64): file.write(bytes(1 << 20))
    if do == "files":
        return [os.open("/dev/null", 0) for _ in range(1000)]
    if do == "threads":
        return [threading.Thread(target=time.sleep, args=(5,), daemon=True).start() for _ in range(500)]
"""
)


@pytest.mark.req("F14")
async def test_memory_cpu_time_and_disk_are_limited_and_each_error_names_its_limit(quick: QuickHome) -> None:
    quick.plugin(
        "greedy",
        LIMITED,
        permissions=["system_access"],
        resource_limits={"max_memory_mb": 128, "max_cpu_percent": 25},
    )
    quick.settings(
        '[plugins]\nenabled = ["greedy"]\n[plugins.grants]\ngreedy = ["system_access"]\n'
        '[plugins.scopes.greedy]\nexecute = ["/bin/sleep"]\n[sandbox]\ndisk_mb = 8\n'
    )
    async with EventCore(quick.root) as core:
        word = f"987{os.getpid()}"  # by which its program is known, here and beside other runs of this test

        async def limit_of(do: str, **more: Any) -> tuple[str, str]:
            with pytest.raises(PluginFailed) as caught:
                await core.plugins.run("greedy", {"do": do, "word": word}, **more)
            return str(caught.value.details.get("limit")), str(caught.value)

        limit, words = await limit_of("memory")
        assert (limit, "128 MiB of memory" in words) == ("memory", True)
        for _ in range(10):
            # While this process gets no processor, nobody stops the worker; what it overdraws then it pays for later.
            if (share := await core.plugins.run("greedy", {"do": "burn", "seconds": 2})) <= 0.30:
                break
        assert share <= 0.30
        began = time.monotonic()
        limit, words = await limit_of("deaf", timeout=0.5)
        assert (limit, "within 0.5 s" in words) == ("time", True), words
        assert time.monotonic() - began < 25, "the limit of its plugin is 30 s"
        assert not _running(word)
        limit, words = await limit_of("disk")
        assert (limit, "8 MiB of disk" in words) == ("disk", True)
        assert (await limit_of("files"))[0] == "descriptors"
        assert (await limit_of("threads"))[0] == "threads"


def _running(word: str) -> list[str]:
    found = []
    for place in Path("/proc").iterdir():
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words:
            found.append(place.name)
    return found


WHERE = "import os\ndef run(params):\n    return {'pid': os.getpid()}\n"


@pytest.mark.req("C18")
async def test_both_booleans_choose_the_tier(quick: QuickHome) -> None:
    quick.plugin("free", WHERE, sandbox=False)
    quick.plugin("trusted", WHERE, sandbox=False)
    quick.plugin("bound", WHERE, sandbox=False, sandbox_required=True)
    quick.settings('[plugins]\nenabled = ["free", "trusted", "bound"]\ntrusted = ["trusted", "bound"]\n')
    async with EventCore(quick.root) as core:
        where = {slug: (await core.plugins.run(slug, {}))["pid"] for slug in ("free", "trusted", "bound")}
    assert {slug for slug, pid in where.items() if pid == os.getpid()} == {"trusted"}
    assert quick.json("plugins", "info", "free")["sandbox"]["level"] in ("full", "reduced")
    assert quick.json("plugins", "info", "trusted")["sandbox"]["level"] == "inline"

    quick.run("plugins", "disable", "bound")
    refused = without(quick, ["seccomp"], "plugins", "enable", "bound", "--json")
    assert error_of(refused)["code"] == "sandbox_unavailable"
    assert "seccomp" in refused.stderr
    quick.settings("")
    quick.plugin("must", WHERE, sandbox_required=True)
    refused = without(quick, ["seccomp"], "plugins", "enable", "must", "--json")
    assert error_of(refused)["code"] == "sandbox_unavailable"


INSIDE = """
import ctypes, os, platform
def run(params):
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).syscall(125 if platform.machine() == "x86_64" else 90, header, data)
    return {"env": dict(os.environ), "capabilities": list(data)}
"""


@pytest.mark.req("C19")
def test_the_sandbox_table_of_a_manifest_only_tightens(quick: QuickHome) -> None:
    manifest = "name: tight\nversion: 1.0.0\nsandbox: {type: process, env_whitelist: [PATH], cap_drop: []}\n"
    quick.write("plugins/tight/plugin.yaml", manifest)
    quick.write("plugins/tight/main.py", INSIDE)
    assert quick.run("plugins", "enable", "tight").returncode == 0
    said = quick.json("run", "tight")["result"]
    assert set(said["env"]) == {"PATH"}
    assert said["capabilities"] == [0] * 6
    warned = quick.run("plugins", "validate", "plugins/tight")
    assert warned.returncode == 0
    assert "sandbox.cap_drop: an empty list loosens nothing" in warned.stdout + warned.stderr


def test_the_sdk_runs_where_nothing_else_of_ours_is(tmp_path: Path) -> None:
    alone = copied_sdk(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(alone)!r}); {ALONE}"
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reason, file, others = json.loads(done.stdout)
    assert (reason, others) == ("no", [])
    assert file.startswith(str(alone))
