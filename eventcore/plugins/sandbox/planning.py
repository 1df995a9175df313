"""From what a worker may use to the plan that it is confined by. Pure but for looking at which paths exist."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from eventcore.plugins.sandbox.confine import Plan
from eventcore.plugins.sandbox.launch import host_paths
from eventcore.plugins.sandbox.probe import reserved_uid
from eventcore.plugins.sandbox.spec import WorkerSpec

_MIB = 1 << 20
_PACKAGE = Path(__file__).resolve().parents[2]
#: What C libraries, time zones and TLS need. Nothing in them is a secret: keys lie elsewhere beneath /etc/ssl.
_SYSTEM = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/usr/share/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
)


@cache
def runtime_paths() -> tuple[str, ...]:
    """What Python itself needs: its library, the system's libraries, and our own package."""
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    config = sysconfig.get_config_var("LIBDIR")
    paths += [config] if config else []
    found = [*paths, *_SYSTEM, str(_PACKAGE)]
    return tuple(dict.fromkeys(path for path in found if os.path.exists(path)))


def make_plan(
    spec: WorkerSpec,
    *,
    namespaces: bool,
    abi: int,
    folder: str,
    command: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for a worker on a machine that has these means.

    Args:
        folder: where the private folder is, if there is no view.
        command, env: a program to run in place of a worker.
    """
    allow = spec.allow
    packages = host_paths() if spec.paths is None else spec.paths
    read = (*runtime_paths(), *packages, str(spec.dir.absolute()), *allow.read, *allow.system)
    read = tuple(path for path in dict.fromkeys(read) if os.path.exists(path))
    uid = reserved_uid(f"{spec.tenant}/{spec.slug}")
    counted, threads = uid, allow.threads
    if uid is not None and not namespaces and not all(map(open_to_others, (*read, *allow.write))):
        uid = None  # without a view of its own it could not even read its code; capabilities it loses all the same
    if counted is None and not namespaces:
        threads += threads_of(os.geteuid())  # the kernel counts them as its own
    mine = (str(spec.dir.absolute()), *allow.read) if namespaces and uid is not None else ()
    return Plan(
        slug=spec.slug,
        namespaces=namespaces,
        uid=uid,
        read=read,
        write=allow.write,
        cwd=allow.cwd,
        own=tuple(path for path in mine if os.path.exists(path) and not _open(path)),
        fixed=(*allow.read, *allow.write),
        programs=allow.programs,
        ports=allow.ports,
        folder=folder,
        memory=int(allow.memory_mb * _MIB),
        disk=int(allow.disk_mb * _MIB),
        threads=threads,
        counted=counted,
        keep=allow.env,
        abi=abi,
        command=command,
        env=tuple(f"{name}={value}" for name, value in (env or {}).items()),
    )


def threads_of(uid: int) -> int:
    """How many threads a user has now."""
    total = 0
    for place in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if place.name.isdigit() and place.stat().st_uid == uid:
                total += int((place / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[17])
    return total


def watched(spec: WorkerSpec) -> dict[str, Any]:
    """What the worker is to tell of, for the record, when its plugin tries it; see `worker/watch.py`."""
    allow, place = spec.allow, str(spec.dir.absolute())
    packages = host_paths() if spec.paths is None else spec.paths
    return {
        "home": spec.home,
        "roots": [*runtime_paths(), *packages, sys.prefix, sys.base_prefix, place, *allow.read],
        "write": list(allow.write),
        "network": bool(allow.ports),
        "programs": bool(allow.programs),
        "dir": place,
    }


def open_to_others(path: str) -> bool:
    """Whether any user can reach a path and read it."""
    place = Path(path).resolve()
    if not place.stat().st_mode & 0o004:
        return False
    return all(parent.stat().st_mode & 0o001 for parent in place.parents)


def _open(path: str) -> bool:
    """Whether any user can read what stands directly in a folder; a guess that saves a mount of a special kind."""
    if not os.path.isdir(path):
        return bool(os.stat(path).st_mode & 0o004)
    with os.scandir(path) as entries:
        return os.stat(path).st_mode & 0o005 == 0o005 and all(one.stat().st_mode & 0o004 for one in entries)
