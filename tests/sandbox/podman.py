"""A real container engine for tests: podman's Docker-compatible service, and an image made of our own interpreter."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

IMAGE = "eventcore-test:latest"
#: Folders of the standard library that no test needs.
_LEFT_OUT = ("test", "idlelib", "lib2to3", "ensurepip", "site-packages", "turtledemo", "__pycache__", "tkinter")


@contextmanager
def podman(folder: Path) -> Iterator[str]:
    """The socket of a service that has `IMAGE`; skips the test, with the reason, where it cannot run."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("podman", "runc", "conmon"))):
        pytest.skip("needs root, podman, runc and conmon: apt-get install podman runc conmon")
    socket = folder / "podman.sock"
    own = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    # runc, and no systemd: crun refuses hybrid control groups, and a container or a test machine has no systemd.
    command = ["podman", *own, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
    registries = folder / "registries.conf"  # the one of `registry.py` speaks no TLS
    registries.write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n')
    with (folder / "podman.log").open("wb") as log:
        service = subprocess.Popen(
            [*command, "system", "service", "--time", "0", f"unix://{socket}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "CONTAINERS_REGISTRIES_CONF": str(registries)},
        )
        try:
            _await(socket, service, folder / "podman.log")
            _import(socket)
            yield str(socket)
        finally:
            service.terminate()
            service.wait(60)
            subprocess.run([*command, "rm", "--all", "--force", "--time", "0"], capture_output=True, timeout=60)
            shutil.rmtree(folder / "root", ignore_errors=True)  # every container has a copy of the image there


def _await(socket: Path, service: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end and service.poll() is None:
        if socket.exists():
            with client(socket) as http:
                http.get("/_ping").raise_for_status()
            return
        time.sleep(0.05)
    pytest.skip(f"podman's service does not come up here: {log.read_text()[-500:]}")


def client(socket: str | Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=60, base_url="http://engine")


def _import(socket: Path) -> None:
    with client(socket) as http:
        params = {"fromSrc": "-", "repo": IMAGE.partition(":")[0]}  # podman 4 makes it :latest, whatever tag is named
        done = http.post("/v1.41/images/create", params=params, content=_root_file_system())
        if done.is_error:
            pytest.skip(f"the engine imports no image: {done.text[:500]}")


def _root_file_system() -> bytes:
    """The interpreter, its library, and the libraries that both are linked with, each in its own place."""
    python = os.path.realpath(sys.executable)
    library = Path(sysconfig.get_path("stdlib"))
    modules = [str(path) for path in (library / "lib-dynload").glob("*.so")]
    linked = {path for one in (python, *modules) for path in _linked(one)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(library, str(library), filter=_wanted)
        for path in {python, *linked}:
            archive.add(os.path.realpath(path), path, recursive=False)
        for link in ("/usr/bin/python3",):
            if link != python and link not in linked:
                info = tarfile.TarInfo(link)
                info.type, info.linkname = tarfile.SYMTYPE, python
                archive.addfile(info)
        for place in ("/tmp", "/proc", "/sys", "/dev", "/etc"):
            info = tarfile.TarInfo(place)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info)
    return buffer.getvalue()


def _wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = {*Path(info.name).parts}
    return None if parts & {*_LEFT_OUT} or any(part.startswith("config-") for part in parts) else info


def _linked(path: str) -> list[str]:
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    words = [word for line in done.stdout.splitlines() for word in line.split() if word.startswith("/")]
    return [word for word in words if os.path.exists(word)]
