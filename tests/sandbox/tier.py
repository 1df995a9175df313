"""Who runs the driver: root and an unprivileged user, with and without namespaces; and whether this machine can."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import eventcore

HERE = Path(__file__).parent
ROOT = Path(eventcore.__file__).resolve().parents[1]
#: An unprivileged user, another one for each process that tests run in, those of another run on this machine among
#: them: the kernel counts a user's threads together. From the range that is nobody's in particular.
NOBODY = 61_200 + os.getpid() % 4_300
MODES = ("root-full", "root-reduced", "nobody-full", "nobody-reduced")

#: A plugin that evaluates what it is given. It is no secret that it runs strangers' code: that is the point.
EVALUATOR = """
import ctypes, errno, os, resource, signal, socket, subprocess, sys, threading, time
def run(params):
    return eval(params, globals())
"""


def reachable(path: str) -> bool:
    """Whether any user can use what lies there."""
    place = Path(path).resolve()
    return bool(place.stat().st_mode & 0o004) and all(p.stat().st_mode & 0o001 for p in place.parents)


def interpreter() -> str:
    """One of our version that everybody can run."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for one in (os.path.realpath(sys.executable), f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if os.path.exists(one) and reachable(one):
            return one
    return ""


def as_user(who: str, command: Sequence[str]) -> list[str]:
    """The command as that user, or skip with what is missing."""
    if who == "root":
        if os.geteuid():
            pytest.skip("needs root: run the tests as root to see this half")
        return [sys.executable, *command]
    if os.geteuid():
        return [sys.executable, *command]
    python = interpreter()
    if not python or not shutil.which("setpriv"):
        pytest.skip(
            "needs setpriv, and an interpreter of this version that every user can read, such as /usr/bin/python3"
        )
    packages = sysconfig.get_path("purelib")
    if not reachable(packages) or not reachable(str(ROOT / "eventcore")):
        pytest.skip(f"needs {packages} and {ROOT} to be readable for every user")
    paths = f"PYTHONPATH={ROOT}:{packages}"
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", "HOME=/tmp", paths]
    return [*user, python, "-B", *command]


def drive(
    mode: str,
    folder: Path,
    expressions: dict[str, str],
    allow: dict[str, Any] | None = None,
    *,
    code: str = EVALUATOR,
    before: Sequence[str] = (),
    closed: bool = False,
    spare: bool = False,
) -> dict[str, Any]:
    """Run the driver in a mode and return what it printed.

    Args:
        closed: whether only we may read the plugin's code.
        spare: whether the worker is to be one that was forked ahead.
        before: what stands in front of the driver on the command line, such as a script that masks system calls.
    """
    who, level = mode.split("-")
    plugin = folder / "plugin"
    plugin.mkdir(exist_ok=True)
    (plugin / "handler.py").write_text(code)
    for one in (plugin, *folder.parents, folder):
        if one.is_relative_to("/tmp") and one != Path("/tmp") and os.geteuid() == 0:
            one.chmod(one.stat().st_mode | 0o055)
    if closed:
        (plugin / "handler.py").chmod(0o600)
        plugin.chmod(0o700)
    arguments = [str(HERE / "tier_driver.py"), str(plugin), level, json.dumps(expressions), json.dumps(allow or {})]
    arguments += ["spare"] if spare else []
    done = subprocess.run(
        as_user(who, [*before, *arguments]), capture_output=True, text=True, timeout=300, cwd="/", check=False
    )
    assert done.stdout, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
