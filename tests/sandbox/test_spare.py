"""A worker that was forked ahead is confined as one that is forked when it is asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.sandbox.tier import HERE, MODES, drive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there")

#: Not NPROC, which without namespaces depends on what else our user runs.
_LIMITS = "CORE MEMLOCK MSGQUEUE NOFILE FSIZE SIGPENDING CPU"
FACTS = {
    "who": "[os.getresuid(), os.getresgid(), os.getgroups()]",
    "place": "[os.getcwd() == os.environ['HOME'], os.getsid(0) == os.getpid()]",
    "variables": "sorted((name, text) for name, text in os.environ.items() if name not in ('HOME', 'TMPDIR'))",
    "root": "sorted(os.listdir('/'))",
    "its flags": "os.statvfs('/').f_flag",
    "its folder": "[os.statvfs('.').f_flag, os.statvfs('.').f_blocks, os.listdir('.')]",
    "limits": f"[resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in {_LIMITS!r}.split()]",
    "descriptors": "[fd for fd in range(256) if _open(fd)]",
    "what is kept": "sorted(name for name in sys.modules if name.startswith('eventcore._loaded'))",
    "a file": "open('/etc/passwd').read()",
    "a folder above": "os.listdir('/root')",
    "a socket": "socket.socket()",
    "a program": "os.execv('/bin/true', ['true'])",
    "a process": "os.fork()",
    "a signal": "os.kill(os.getppid(), 0)",
    "a namespace": "ctypes.CDLL(None, use_errno=True).unshare(0x10000000) or ctypes.get_errno()",
    "the host's folders": "os.open('..', os.O_RDONLY, dir_fd=os.open('/', os.O_RDONLY)) and sorted(os.listdir('/..'))",
}
CODE = """
import ctypes, errno, os, resource, signal, socket, sys
def _open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
def run(params):
    return eval(params, globals())
"""


@pytest.mark.parametrize("mode", MODES)
def test_it_is_confined_as_any_other(mode: str, tmp_path: Path) -> None:
    allow = {"write": [str(tmp_path / "data")], "memory_mb": 200}
    (tmp_path / "data").mkdir()
    said = [drive(mode, tmp_path, FACTS, allow, code=CODE, spare=spare) for spare in (False, True)]
    assert [one.pop("ahead", None) for one in said] == [False, True], said
    assert said[0] == said[1]
    assert said[1]["a file"].startswith(("PermissionError", "FileNotFoundError"))
    assert said[1]["a socket"].startswith("PermissionError")


@pytest.mark.parametrize("mode", ["root-full", "nobody-full"])
def test_a_plan_that_it_does_not_fit_gets_one_of_its_own(mode: str, tmp_path: Path) -> None:
    said = drive(mode, tmp_path, {"a socket": "socket.socket().close()"}, {"ports": [65000]}, code=CODE, spare=True)
    assert (said["ahead"], said["a socket"]) == (False, None)


@pytest.mark.parametrize("mode", MODES)
def test_its_memory_is_counted_from_where_it_begins(mode: str, tmp_path: Path) -> None:
    tries = {"within": "len(bytearray(40 << 20))", "beyond": "len(bytearray(80 << 20))"}
    said = drive(mode, tmp_path, tries, {"memory_mb": 64}, code=CODE, spare=True)
    assert (said["ahead"], said["within"], said["beyond"].partition(":")[0]) == (True, 40 << 20, "MemoryError")


@pytest.mark.parametrize("spare", [False, True])
def test_the_workers_of_a_host_in_a_chroot_see_their_view(spare: bool, tmp_path: Path) -> None:
    """The root of a mount namespace is another one than that of a process in a chroot, which is where views are."""
    facts = {name: FACTS[name] for name in ("place", "root", "its flags", "its folder", "the host's folders")}
    for mode in ("root-full", "root-reduced"):
        (tmp_path / mode / "chroot").mkdir(parents=True)
        before = [str(HERE / "chrooted.py"), str(tmp_path / mode / "chroot")]
        said = [drive(mode, tmp_path / mode, facts, code=CODE, spare=spare, before=one) for one in ((), before)]
        assert [one.pop("ahead", False) for one in said] == [spare, spare], said
        assert said[0] == said[1]
