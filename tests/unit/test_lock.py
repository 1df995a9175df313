"""The owner lock, against real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventcore.home.lock import Owner, OwnerLock, boot_id, read_owner, refuse_network_filesystem
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import HomeError, HomeInUse

REPOSITORY = Path(__file__).resolve().parents[2]

HOLDER = """
import sys
from pathlib import Path
from eventcore.home.lock import OwnerLock
from eventcore.kernel.clock import SystemClock
lock = OwnerLock(Path(sys.argv[1]), SystemClock())
lock.acquire()
lock.record_socket(Path("/run/some.sock"))
print("held", flush=True)
sys.stdin.read()
lock.release()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    state = tmp_path / "home" / ".eventcore"
    state.mkdir(parents=True)
    return state / "lock"


def lock_at(path: Path) -> OwnerLock:
    return OwnerLock(path, SystemClock())


@contextmanager
def another_engine(path: Path) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_another_process_is_named(path: Path) -> None:
    with another_engine(path) as process:
        with pytest.raises(HomeInUse, match=rf"process {process.pid} owns .*home") as caught:
            lock_at(path).acquire()
        assert caught.value.details == {"pid": process.pid, "socket": "/run/some.sock"}
        assert not lock_at(path).held


def test_a_clean_end_frees_it(path: Path) -> None:
    with another_engine(path) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
        assert read_owner(path) is None
        with lock_at(path) as lock:
            assert lock.held


def test_kill_9_frees_it_and_what_it_left_is_overwritten(path: Path) -> None:
    with another_engine(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        left = read_owner(path)
        assert left is not None
        assert left.pid == process.pid
        assert not left.is_current()
        with lock_at(path):
            owner = read_owner(path)
            assert owner is not None
            assert (owner.pid, owner.boot_id, owner.socket) == (os.getpid(), boot_id(), "")
            assert owner.started > 1_700_000_000
            assert owner.is_current()


def test_two_objects_of_one_process_exclude_each_other(path: Path) -> None:
    first, second = lock_at(path), lock_at(path)
    with first:
        with pytest.raises(HomeInUse, match=str(os.getpid())):
            second.acquire()
        with pytest.raises(HomeInUse):
            first.acquire()
        assert first.held
    assert not first.held
    with second:
        assert second.held


def test_a_program_we_start_does_not_inherit_it(path: Path) -> None:
    lock = lock_at(path)
    lock.acquire()
    code = "print('up', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            # As a crash would: the descriptor goes away, nobody unlocks. A child that had it would keep the lock.
            assert lock._fd is not None
            os.close(lock._fd)
            with lock_at(path) as other:
                assert other.held
        finally:
            child.kill()


def test_a_forked_child_cannot_release_it(path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from eventcore.home.lock import OwnerLock
from eventcore.kernel.clock import SystemClock
from eventcore.kernel.errors import HomeInUse
path = Path({str(path)!r})
lock = OwnerLock(path, SystemClock())
lock.acquire()
child = os.fork()
if child == 0:
    held = lock.held
    lock.release()
    os._exit(held)
assert os.waitpid(child, 0)[1] == 0
try:
    OwnerLock(path, SystemClock()).acquire()
except HomeInUse:
    sys.exit(0)
sys.exit("the child released it")
"""
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=60)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": "x"}', "\x00" * 10])
def test_garbage_in_the_file_does_no_harm(path: Path, content: str) -> None:
    path.write_text(content)
    assert read_owner(path) is None
    with lock_at(path):
        assert read_owner(path) is not None


def test_stale_content_of_another_boot_is_not_believed(path: Path) -> None:
    assert not Owner(os.getpid(), "another boot", 0.0).is_current()
    assert not Owner(0, boot_id(), 0.0).is_current()
    assert not Owner(2**80, boot_id(), 0.0).is_current()
    with lock_at(path) as lock:
        path.write_text(json.dumps({"pid": 1, "boot_id": "another boot", "started": 0, "socket": ""}))
        with pytest.raises(HomeInUse, match="another process owns"):
            lock_at(path).acquire()
        assert lock.held


def test_a_lock_taken_while_the_file_is_replaced_is_on_the_new_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, opened = lock_at(path), []
    really_open = lock._open

    def open_and_lose_it() -> int:
        opened.append(really_open())
        if len(opened) == 1:
            path.unlink()
        return opened[-1]

    monkeypatch.setattr(lock, "_open", open_and_lose_it)
    with lock:
        assert len(opened) == 2
        with pytest.raises(HomeInUse):
            lock_at(path).acquire()


def test_it_is_private_and_follows_no_link(path: Path, tmp_path: Path) -> None:
    with lock_at(path):
        assert path.stat().st_mode & 0o077 == 0
    path.unlink()
    (tmp_path / "precious").write_text("keep")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(HomeError, match="cannot open"):
        lock_at(path).acquire()
    assert (tmp_path / "precious").read_text() == "keep"


def test_record_socket_needs_the_lock(path: Path) -> None:
    lock = lock_at(path)
    with pytest.raises(HomeError, match="not held"):
        lock.record_socket(Path("/x"))
    with lock:
        lock.record_socket(Path("/a/much/longer/path.sock"))
        lock.record_socket(Path("/x"))
        owner = read_owner(path)
        assert owner is not None
        assert owner.socket == "/x"


MOUNTS = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:50 / {root} rw shared:1 - {kind} server:/export rw
41 27 0:51 / {root}/local rw - tmpfs tmpfs rw
42 27 0:52 / {root}/with\040space rw master:2 - cifs //server/share rw
malformed
"""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"])
def test_network_filesystems_are_refused(tmp_path: Path, kind: str) -> None:
    root = tmp_path.resolve()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(root=root, kind=kind))
    for name in ("sub", "local", "with space", "localized"):
        (root / name).mkdir()
    for name in (".", "sub", "localized"):
        with pytest.raises(HomeError, match=f"network filesystem \\({kind} at {root}\\)"):
            refuse_network_filesystem(root / name, mounts)
    with pytest.raises(HomeError, match=r"cifs at .*with space"):
        refuse_network_filesystem(root / "with space", mounts)
    refuse_network_filesystem(root / "local", mounts)
    refuse_network_filesystem(root.parent, mounts)


def test_the_last_mount_on_a_point_counts(tmp_path: Path) -> None:
    root, mounts = tmp_path.resolve(), tmp_path / "mountinfo"
    over = f"1 0 0:1 / {root} rw - nfs4 s:/ rw\n2 1 0:2 / {root} rw - ext4 /dev/x rw\n"
    mounts.write_text(over)
    refuse_network_filesystem(root, mounts)
    refuse_network_filesystem(root, tmp_path / "no such table")
