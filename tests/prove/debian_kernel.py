"""Boots Debian's own kernel in qemu, with this machine's files beneath it, and runs a command there.

The virtual machine sees `/` read-only over 9p, with an overlay in memory, so no image is needed and nothing of this
machine is changed. Its console is what the command prints.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

#: A `linux-image-6.1.*-amd64` package; without it one in the folder `.prove` is looked for.
ENV_KERNEL = "EVENTCORE_KERNEL_DEB"
_DONE = "eventcore-ended-with"
#: In the order in which they need one another; what this kernel has built in is not there.
_MODULES = (
    "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci "
    "netfs fscache 9pnet 9pnet_virtio 9p overlay"
).split()
_INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /proc /sys /dev /lower /over /new
$B mount -t devtmpfs dev /dev; $B mount -t proc proc /proc
for one in {modules}; do $B insmod /modules/$one.ko 2>/dev/null; done
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro root /lower
$B mount -t tmpfs over /over; $B mkdir /over/up /over/work
$B mount -t overlay -o lowerdir=/lower,upperdir=/over/up,workdir=/over/work over /new
$B mount -t proc proc /new/proc; $B mount -t sysfs sys /new/sys; $B mount -t devtmpfs dev /new/dev
$B mkdir -p /new/dev/shm; $B mount -t tmpfs shm /new/dev/shm; $B ip link set lo up
exec $B switch_root /new /bin/sh -c {command} </dev/null
"""
#: In the root that machines have in the end: in a chroot nobody but root has namespaces.
_COMMAND = """({command})
echo {done} $?
/bin/busybox poweroff -f
"""


def kernel_package() -> Path:
    """The package of the kernel, or skip with what is missing."""
    lacks = [name for name in ("qemu-system-x86_64", "dpkg-deb") if not shutil.which(name)]
    lacks += [] if Path("/bin/busybox").exists() else ["busybox-static"]
    if platform.machine() != "x86_64" or lacks or os.geteuid():
        pytest.skip(f"needs root on x86_64, and {', '.join(lacks) or 'nothing else'}: `make kernel` installs it")
    given = os.environ.get(ENV_KERNEL)
    found = [Path(given)] if given else sorted(Path(".prove").glob("linux-image-6.1.*_amd64.deb"))
    if not found:
        pytest.skip(
            f"needs Debian 12's kernel: `make kernel` as root on Debian 12 fetches it, or {ENV_KERNEL} names it"
        )
    return found[-1]


def run(package: Path, command: str, folder: Path, timeout: float) -> str:
    """What `command` prints, as root, on that kernel.

    Args:
        command: for a shell; it sees this machine's files, and may write, which is forgotten.
        timeout: seconds until the machine is switched off.

    Raises:
        AssertionError: it does not boot, does not end in time, or ends with something other than 0.
    """
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "kernel")], check=True)
    [kernel] = (folder / "kernel" / "boot").glob("vmlinuz-*")
    modules = {path.name.removesuffix(".ko"): path for path in (folder / "kernel").rglob("*.ko")}
    files = {f"modules/{name}.ko": modules[name].read_bytes() for name in _MODULES if name in modules}
    whole = _COMMAND.format(command=command, done=_DONE)
    init = _INIT.format(modules=" ".join(_MODULES), command=shlex.quote(whole))
    files |= {"init": init.encode(), "bin/busybox": Path("/bin/busybox").read_bytes()}
    (folder / "initrd").write_bytes(b"".join(_cpio(files)))
    # Emulated, though slower: virtual machines within virtual machines are not to be had everywhere, or hang.
    machine = ["-M", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072"]
    boot = ["-kernel", str(kernel), "-initrd", str(folder / "initrd"), "-append", "console=ttyS0 panic=-1 quiet"]
    share = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"
    disks = ["-fsdev", share, "-device", "virtio-9p-pci,fsdev=root,mount_tag=root", "-net", "none"]
    try:
        done = subprocess.run(
            ["qemu-system-x86_64", "-nographic", "-no-reboot", *machine, *boot, *disks],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        said, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        said, errors = late.stdout or b"", late.stderr or b""
    text = said.decode(errors="replace").replace("\r", "")
    assert f"{_DONE} 0" in text, f"{text[-3000:]}\n{errors.decode(errors='replace')[-500:]}"
    return text


def _cpio(files: dict[str, bytes]) -> Iterator[bytes]:
    """An archive as the kernel unpacks it at its start (format `newc`)."""
    folders = sorted({str(place) for name in files for place in Path(name).parents} - {"."})
    for name in folders:
        yield _entry(name, 0o040755, b"")
    for name, data in files.items():
        yield _entry(name, 0o100755, data)
    yield _entry("TRAILER!!!", 0, b"")


def _entry(name: str, mode: int, data: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)
