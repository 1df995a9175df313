"""How full a worker's folders are: what is counted, and when it is looked at."""

from __future__ import annotations

import array
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from eventcore.plugins.sandbox.diskwatch import DiskWatch, Quota, size_of
from eventcore.plugins.sandbox.kin import cpu_of_kin, kin_of
from eventcore.plugins.sandbox.nameless import Disks, nameless

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
]
_MIB = 1 << 20


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Worker:
    """One that does as the test says."""

    def __init__(self) -> None:
        self.seconds: float | None = 1.0
        self.hidden = 0.0
        self.told: list[tuple[bool, str]] = []
        self.looked = threading.Event()
        #: How often the watch's own loop has asked; its looks ask as well, in threads.
        self.asked = 0

    def active_seconds(self) -> float | None:
        self.asked += threading.current_thread() is threading.main_thread()
        return self.seconds

    def nameless_bytes(self, disks: Disks) -> float:
        self.looked.set()
        return self.hidden

    def pause(self, stopped: bool, why: str = "share") -> None:
        self.told.append((stopped, why))


async def begun(folder: Path, most: int) -> tuple[DiskWatch, Worker]:
    worker = Worker()
    watch = DiskWatch([Quota(str(folder), most)], worker)
    await watch.begin()
    worker.looked.clear()
    return watch, worker


async def test_an_answer_is_looked_at_if_its_worker_had_the_time_to_fill_what_was_left(tmp_path: Path) -> None:
    watch, worker = await begun(tmp_path, 4 * _MIB)
    (tmp_path / "a").write_bytes(bytes(5 * _MIB))
    assert await watch.look_first() == ""  # it has not computed since
    assert not worker.looked.is_set()
    worker.seconds = 1.1
    assert "holds more than 4 MiB" in await watch.look_first()


async def test_what_lay_there_before_counts_as_room(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(bytes(6 * _MIB))
    watch, worker = await begun(tmp_path, 4 * _MIB)
    worker.seconds = 2.0
    assert await watch.look_first() == ""
    (tmp_path / "new").write_bytes(bytes(_MIB))
    worker.seconds = 3.0
    assert "holds more than 6 MiB" in await watch.look_first()


async def test_files_without_a_name_take_the_same_room(tmp_path: Path) -> None:
    watch, worker = await begun(tmp_path, 4 * _MIB)
    (tmp_path / "a").write_bytes(bytes(2 * _MIB))
    worker.seconds, worker.hidden = 2.0, 1.5 * _MIB
    assert await watch.look_first() == ""
    worker.seconds, worker.hidden = 3.0, 2.5 * _MIB
    assert "files without a name" in await watch.look_first()


async def test_one_that_is_about_to_fill_its_folder_is_stopped_while_it_is_looked_at(tmp_path: Path) -> None:
    watch, worker = await begun(tmp_path, 64 * _MIB)
    ended: list[str] = []

    async def run() -> None:
        ended.append(await watch.run())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        with anyio.fail_after(60):
            for number in range(1000):
                (tmp_path / str(number)).write_bytes(bytes(2 * _MIB))
                worker.seconds = 2.0 + number
                # Until the watch has come round: while the thread that looks gets no processor, nothing is written.
                turn = worker.asked + 2
                while worker.asked < turn and not ended:
                    await anyio.sleep(0.001)
                if ended:
                    break
    assert "holds more than 64 MiB" in ended[0]
    assert worker.told[:2] == [(True, "disk"), (False, "disk")]
    assert len(worker.told) % 2 == 0
    assert not worker.told[-1][0]


async def test_one_that_computes_nothing_is_left_alone_and_the_watch_ends_with_it(tmp_path: Path) -> None:
    watch, worker = await begun(tmp_path, _MIB)
    ended: list[str] = []

    async def run() -> None:
        ended.append(await watch.run())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            assert await anyio.to_thread.run_sync(worker.looked.wait, 30)
            await anyio.sleep(0.02)
            worker.looked.clear()
            await anyio.sleep(0.15)
            assert not worker.looked.is_set()
            worker.seconds = None
    assert ended == [""]


def test_links_count_once_and_entries_at_least_a_page(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(_MIB))
    one = size_of(str(tmp_path))
    os.link(tmp_path / "file", tmp_path / "again")
    (tmp_path / "empty").touch()
    assert size_of(str(tmp_path)) == one + 2 * 4096
    for number in range(20):
        (tmp_path / str(number)).touch()
    assert size_of(str(tmp_path), 4096) <= one + 4096  # no more is looked at than is needed


def test_what_a_process_keeps_without_a_name_is_found_open_mapped_and_under_way(tmp_path: Path) -> None:
    device, most = Disks(frozenset((tmp_path.stat().st_dev,))), 3 * _MIB

    def made() -> int:
        fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.write(fd, bytes(_MIB))
        return fd

    pid = (os.getpid(),)
    before = nameless(pid, device, most)
    opened, mapped, flying = made(), made(), made()
    assert nameless(pid, device, most) == before + 3 * _MIB
    with mmap.mmap(mapped, 4096):
        os.close(mapped)
        assert nameless(pid, device, most) - before in (3 * _MIB, 5 * _MIB)  # its size is seen by root alone
        here, there = socket.socketpair()
        with here, there:
            for _ in range(3):  # the first two are let pass
                here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [flying]))])
            os.close(flying)
            assert nameless(pid, device, most) - before in (2 * _MIB + most, _MIB + 2 * most)
    # mmap keeps a descriptor of its own, and has closed it.
    assert nameless(pid, device, most) == before + _MIB
    assert nameless(pid, Disks(), most) <= most
    os.close(opened)


@pytest.fixture
def laid_over(tmp_path: Path) -> Iterator[Path]:
    """A folder of layers on two file systems, in which files have another device than folders."""
    if os.geteuid():
        pytest.skip("needs root, who may mount: run the tests as root to see this")
    above, merged = tmp_path / "above", tmp_path / "merged"
    for folder in (tmp_path / "below", above, merged):
        folder.mkdir()
    mount = ["mount", "-t"]
    subprocess.run([*mount, "tmpfs", "above", above], check=True)
    try:
        for folder in (above / "upper", above / "work"):
            folder.mkdir()
        layers = f"lowerdir={tmp_path}/below,upperdir={above}/upper,workdir={above}/work,xino=off"
        done = subprocess.run([*mount, "overlay", "layers", "-o", layers, merged], check=False)
        if done.returncode:
            pytest.skip("needs a kernel with overlayfs: try `modprobe overlay`")
        yield merged
        subprocess.run(["umount", "-l", merged], check=True)
    finally:
        subprocess.run(["umount", "-l", above], check=True)


def test_files_without_a_name_are_found_where_they_have_a_device_of_their_own(laid_over: Path) -> None:
    disks, pid = Disks.of([str(laid_over)]), (os.getpid(),)
    before = nameless(pid, disks, _MIB)
    opened, mapped = (os.open(laid_over / name, os.O_CREAT | os.O_RDWR) for name in ("opened", "mapped"))
    for fd in (opened, mapped):
        os.write(fd, bytes(2 * _MIB))
    for name in ("opened", "mapped"):
        (laid_over / name).unlink()
    assert os.fstat(opened).st_dev not in disks.devices
    assert nameless(pid, disks, _MIB) == before + 4 * _MIB
    with mmap.mmap(mapped, 4096):
        os.close(mapped)
        assert nameless(pid, disks, _MIB) == before + 4 * _MIB
    os.close(opened)
    assert nameless(pid, disks, _MIB) == before


def test_a_worker_is_as_active_as_its_programs() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read x; while :; do :; done"], stdin=subprocess.PIPE) as child:
        before = cpu_of_kin(os.getpid())
        assert before is not None
        assert child.pid in kin_of(os.getpid())
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        alone = (cpu_of_kin(child.pid) or 0.0) + 0.02
        while (cpu_of_kin(child.pid) or 0.0) < alone:
            pass
        child.kill()
