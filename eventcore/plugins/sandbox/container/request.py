"""From what a worker may use to the request that creates its container. Pure but for looking up who we are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventcore.kernel.context import DEFAULT_TENANT
from eventcore.plugins.sandbox.launch import clean_environment
from eventcore.plugins.sandbox.spec import Allowance, ContainerWish, WorkerSpec

#: Where the plugin's folder, our package, and the private folder are in the container.
WORKSPACE, OURS, SCRATCH = "/workspace", "/eventcore", "/scratch"
_PACKAGE = Path(__file__).resolve().parents[3]
_BOOT = f"{OURS}/eventcore/plugins/sandbox/container/inside.py"
_MIB = 1 << 20
_NOBODY = 65_534
#: Of each process. That of processes counts all of its user's, so it is wide, and `PidsLimit` is what bounds a
#: container; left out, podman sets one that it may not set itself on some machines.
_ULIMITS = {"nofile": 256, "core": 0, "nproc": 4096}


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the host in the container."""

    source: str
    target: str
    writable: bool = False

    def as_dict(self) -> dict[str, Any]:
        # A missing source is an error; the older `Binds` would make a folder of root's in its place.
        return {"Type": "bind", "Source": self.source, "Target": self.target, "ReadOnly": not self.writable}


def container_name(spec: WorkerSpec, suffix: str = "") -> str:
    """`plugin_<id>`; other tenants', and what runs beside it, have a suffix."""
    tenant = "" if spec.tenant == DEFAULT_TENANT else f"_{spec.tenant}"
    return f"plugin_{spec.slug}{tenant}{suffix}"


def user_of(wish: ContainerWish) -> str:
    """Who the worker is: what its manifest says, unless that is root; else nobody, or who we are if we are not root."""
    name = wish.user.partition(":")[0]
    if name and name not in ("0", "root"):
        return wish.user
    return f"{_NOBODY}:{_NOBODY}" if os.geteuid() == 0 else f"{os.geteuid()}:{os.getegid()}"


def mounts(spec: WorkerSpec) -> list[Mount]:
    """The plugin's folder and our package to read, and what was granted, each in its own place."""
    allow = spec.allow
    granted = [Mount(path, path) for path in allow.read] + [Mount(path, path, True) for path in allow.write]
    return [Mount(str(spec.dir.absolute()), WORKSPACE), Mount(str(_PACKAGE), f"{OURS}/eventcore"), *granted]


def environment(spec: WorkerSpec, wish: ContainerWish) -> dict[str, str]:
    """The variables of the container. A manifest's `env_whitelist` can only take some of them away."""
    env = {**clean_environment(SCRATCH), "PYTHONDONTWRITEBYTECODE": "1"}
    if wish.env is not None:
        env = {name: value for name, value in env.items() if name in wish.env}
    config = json.dumps(dict(spec.config), ensure_ascii=False, sort_keys=True)
    return {**env, "PLUGIN_ID": spec.slug, "PLUGIN_CONFIG": config}


def create_request(spec: WorkerSpec, wish: ContainerWish, image: str) -> dict[str, Any]:
    """The body of `POST /containers/create`.

    Nothing that a manifest says loosens it: the capabilities are all dropped, the root is read-only, and there is no
    network unless the operator names one in the plugin's scope.
    """
    allow, env = spec.allow, environment(spec, wish)
    kept = ",".join((*env, *(wish.env or ())))
    return {
        "Image": image,
        "Entrypoint": ["python3", "-I", "-B", _BOOT],
        "Cmd": [OURS, kept],
        "Env": [f"{name}={value}" for name, value in env.items()],
        "User": user_of(wish),
        "WorkingDir": allow.cwd or wish.working_dir or WORKSPACE,
        "Labels": {"eventcore.plugin": spec.slug, "eventcore.tenant": spec.tenant, "eventcore.host": str(os.getpid())},
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "HostConfig": _host_config(spec, wish, allow),
    }


def _host_config(spec: WorkerSpec, wish: ContainerWish, allow: Allowance) -> dict[str, Any]:
    memory = int(allow.memory_mb * _MIB)
    return {
        "NetworkMode": wish.network or "none",
        "Mounts": [mount.as_dict() for mount in mounts(spec)],
        "Tmpfs": {SCRATCH: f"rw,noexec,nosuid,nodev,size={int(allow.disk_mb * _MIB)},mode=1777"},
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "Memory": memory,
        "MemorySwap": memory,
        "CpuShares": int(wish.cpu_shares),
        "NanoCpus": int(allow.cpu_percent * 10_000_000),
        "PidsLimit": allow.threads,
        "Ulimits": [{"Name": name, "Soft": most, "Hard": most} for name, most in _ULIMITS.items()],
        "IpcMode": "private",
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": True,
    }


def usage(found: Mapping[str, Any]) -> dict[str, float]:
    """CPU percent of one core, memory in MiB and network bytes, from the engine's `stats`."""
    cpu, before = found.get("cpu_stats") or {}, found.get("precpu_stats") or {}
    used = _number(cpu, "cpu_usage", "total_usage") - _number(before, "cpu_usage", "total_usage")
    passed = _number(cpu, "system_cpu_usage") - _number(before, "system_cpu_usage")
    cores = _number(cpu, "online_cpus") or 1
    memory = _number(found, "memory_stats", "usage") - _number(found, "memory_stats", "stats", "inactive_file")
    networks = (found.get("networks") or {}).values()
    return {
        "cpu_percent": round(max(0.0, used / passed * cores * 100), 2) if passed > 0 and before else 0.0,
        "memory_mb": round(max(0.0, memory) / _MIB, 2),
        "bytes_in": sum(_number(one, "rx_bytes") for one in networks),
        "bytes_out": sum(_number(one, "tx_bytes") for one in networks),
    }


def _number(found: Any, *path: str) -> float:
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) else 0.0
