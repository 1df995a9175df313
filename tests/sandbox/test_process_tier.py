"""The process tier on this kernel, as root and as nobody, with namespaces and without."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox.tier import HERE, MODES, NOBODY, as_user, drive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there")

#: What must fail, whatever the mode.
FORBIDDEN = {
    "a host file": "open('/etc/passwd').read()",
    "a listing": "os.listdir('/etc')",
    "proc": "os.listdir('/proc/self')",
    "a file beside the plugin": "open(os.path.dirname(__file__) + '/new', 'w')",
    "tcp": "socket.socket()",
    "unix": "socket.socket(socket.AF_UNIX)",
    "fork": "os.fork()",
    "a program": "subprocess.run(['/bin/true'])",
    "a signal to the host": "os.kill(os.getppid(), 0)",
    "a signal to all": "os.kill(-1, 0)",
    "more rights": "os.setuid(0)",
    "a higher limit": "resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999))",
    "io_uring": "[ctypes.CDLL(None, use_errno=True).syscall(425, 1, 0), 1/(ctypes.get_errno() - 1)]",
    "a core": "os.sched_setaffinity(0, [0])",
    "a device": "os.mknod('device', 0o20666, 0x101)",
    "a fifo": "os.mkfifo('fifo')",
    "descriptors": "[os.open('/dev/null', 0) for _ in range(300)]",
}
#: What must work, whatever the mode.
ORDINARY = {
    "a thread": "[t := threading.Thread(target=len, args=('',)), t.start(), t.join(5), t.is_alive()][3]",
    "a private file": "[open('x', 'w').write('hi'), open('x').read(), os.chmod('x', 0o600) if 0 else None][1]",
    "random": "len(os.urandom(8))",
    "a pair": "len(socket.socketpair())",
    "a lazy import": "__import__('sqlite3').connect(':memory:').execute('select 1').fetchone()[0]",
    "tls": "bool(__import__('ssl').create_default_context())",
    "a zone": "str(__import__('zoneinfo').ZoneInfo('Europe/Berlin'))",
    "a temporary file": "__import__('tempfile').TemporaryFile().write(b'abc')",
    "its own signal": "[signal.signal(signal.SIGUSR1, lambda *a: None) and 0, os.kill(os.getpid(), signal.SIGUSR1)][1]",
}


@pytest.mark.parametrize("mode", MODES)
def test_what_is_forbidden_fails_and_what_is_ordinary_works(mode: str, tmp_path: Path) -> None:
    said = drive(mode, tmp_path, {**ORDINARY, **FORBIDDEN})
    assert said["level"] == mode.split("-")[1]
    assert {name: said[name] for name in FORBIDDEN if not str(said[name]).startswith(ERRORS)} == {}
    assert {name: said[name] for name in ORDINARY} == {
        "a thread": False,
        "a private file": "hi",
        "random": 8,
        "a pair": 2,
        "a lazy import": 1,
        "tls": True,
        "a zone": "Europe/Berlin",
        "a temporary file": 3,
        "its own signal": None,
    }


ERRORS = ("PermissionError: ", "FileNotFoundError: ", "OSError: ", "ValueError: ", "ZeroDivisionError: ")


@pytest.mark.parametrize("mode", MODES)
def test_granted_folders_and_what_leads_out_of_them(mode: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "in").write_text("read me")
    (tmp_path / "secret").write_text("no")
    (data / "link").symlink_to(tmp_path / "secret")
    if mode.startswith("nobody") and os.geteuid() == 0:
        os.chown(data, NOBODY, NOBODY)
    tries = {
        "read": f"open('{data}/in').read()",
        "write": f"open('{data}/out', 'w').write('x')",
        "up": f"open('{data}/../secret').read()",
        "link": f"open('{data}/link').read()",
        "run": f"[open('{data}/p', 'w').write('#!/bin/sh'), os.execv('{data}/p', ['p'])]",
    }
    said = drive(mode, tmp_path, tries, {"read": [str(data)]})
    assert said["read"] == "read me"
    assert [said[name].partition(":")[0] for name in ("write", "up", "link")] == [
        "OSError" if mode.endswith("full") else "PermissionError",  # a read-only mount
        *(("FileNotFoundError",) * 2 if mode.endswith("full") else ("PermissionError",) * 2),
    ]
    if mode == "root-reduced":
        return  # its worker has the host's own user only if it could not read its code otherwise
    said = drive(mode, tmp_path, tries, {"write": [str(data)]})
    assert said["write"] == 1
    assert said["run"].startswith("PermissionError")
    assert said["link"].startswith(("FileNotFoundError", "PermissionError"))
    owner = (data / "out").stat().st_uid
    assert owner == data.stat().st_uid  # what it writes belongs to whose folder it is


def test_stat_of_host_files_needs_a_mount_namespace(tmp_path: Path) -> None:
    tries = {"stat": "os.stat('/etc/passwd').st_size > 0"}
    assert drive("nobody-full", tmp_path, tries)["stat"].startswith("FileNotFoundError")
    assert drive("nobody-reduced", tmp_path, tries)["stat"] is True  # and `eventcore sandbox check` says so


@pytest.mark.parametrize("mode", ["root-full", "nobody-full", "nobody-reduced"])
def test_limits_of_memory_disk_and_threads(mode: str, tmp_path: Path) -> None:
    tries = {
        "much memory": "len(bytearray(1 << 30))",
        "shared memory": "len(__import__('mmap').mmap(-1, 1 << 30))",
        "some memory": "len(bytearray(40 << 20))",
        "disk": "open('big', 'wb').write(bytes(20 << 20))",
        "threads": "[threading.Thread(target=time.sleep, args=(3,), daemon=True).start() for _ in range(200)]",
    }
    said = drive(mode, tmp_path, tries, {"memory_mb": 128, "disk_mb": 8, "threads": 20})
    assert said["much memory"].startswith("MemoryError: tried asked for more than its 128 MiB of memory")
    assert said["shared memory"].startswith("OSError: tried asked for more than its 128 MiB of memory")
    assert said["some memory"] == 40 << 20
    assert said["disk"].startswith("OSError: tried asked for more than its 8 MiB of disk")
    assert said["threads"].startswith("RuntimeError: tried asked for more than its 20 threads: can't start new thread")


SPARE = "[threading.Thread(target=time.sleep, args=(3,), daemon=True).start() for _ in range(15)]"
TOO_MANY = "[threading.Thread(target=time.sleep, args=(3,), daemon=True).start() for _ in range(300)]"


def test_threads_are_counted_beside_those_that_the_user_has_already(tmp_path: Path) -> None:
    """Where no namespace counts them apart, the kernel counts all of a user's threads together."""
    busy = "import threading, time\nfor _ in range(100): threading.Thread(target=time.sleep, args=(60,)).start()\n"
    busy += "print('up', flush=True)"
    with subprocess.Popen(as_user("nobody", ["-c", busy]), stdout=subprocess.PIPE, cwd="/") as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"up\n"
            said = drive("nobody-reduced", tmp_path, {"spare": SPARE, "too many": TOO_MANY}, {"threads": 20})
        finally:
            other.kill()
    assert said["spare"] == [None] * 15
    assert said["too many"].startswith("RuntimeError: tried asked for more than its 20 threads")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the tests as root to see this")
def test_a_worker_that_remains_root_is_limited_all_the_same(tmp_path: Path) -> None:
    """At the level `reduced`, with code that only root can read; no limit of threads binds root itself."""
    tries = {"threads": TOO_MANY, "user": "[os.getuid() != 0, os.geteuid()]", "file": "open('/etc/shadow').read()"}
    said = drive("root-reduced", tmp_path, tries, {"threads": 20}, closed=True)
    assert said["user"] == [True, 0]
    assert said["threads"].startswith("RuntimeError: tried asked for more than its 20 threads")
    assert said["file"].startswith("PermissionError")


@pytest.mark.parametrize("mode", ["root-full", "nobody-full"])
def test_programs_need_a_grant_and_a_pid_namespace(mode: str, tmp_path: Path) -> None:
    tries = {
        "listed": "subprocess.run(['/usr/bin/true']).returncode",
        "not listed": "subprocess.run(['/usr/bin/id']).returncode",
    }
    said = drive(mode, tmp_path, tries, {"programs": ["/usr/bin/true"]})
    assert said["listed"] == 0
    assert said["not listed"].startswith(("FileNotFoundError", "PermissionError"))
    refused = drive(mode.replace("full", "reduced"), tmp_path, tries, {"programs": ["/usr/bin/true"]})["refused"]
    assert refused["code"] == "sandbox_unavailable"


@pytest.mark.parametrize("mode", ["root-full", "nobody-full", "nobody-reduced"])
def test_tcp_to_listed_ports_only(mode: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as granted, socket.create_server(("127.0.0.1", 0)) as other:
        port, closed = granted.getsockname()[1], other.getsockname()[1]
        tries = {
            "granted": f"socket.create_connection(('127.0.0.1', {port}), 5).close()",
            "other": f"socket.create_connection(('127.0.0.1', {closed}), 5).close()",
            "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
            "mptcp": "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
            "unix": "socket.socket(socket.AF_UNIX)",
            "listen": "socket.create_server(('127.0.0.1', 0))",
        }
        said = drive(mode, tmp_path, tries, {"ports": [port]})
    assert said["granted"] is None
    assert {name for name in tries if not str(said[name]).startswith("PermissionError")} == {"granted"}


# Ablation: parts of the kernel taken away by a filter around everything

MASKED = {
    "landlock": (("landlock_create_ruleset",), "landlock"),
    "landlock rules": (("landlock_restrict_self",), "landlock"),
    "seccomp": (("seccomp",), "seccomp"),
    "pidfd": (("pidfd_open",), "pidfd"),
    "prctl": (("prctl",), ""),
    "setrlimit": (("prlimit64", "setrlimit"), "rlimits"),
}
#: The same way, and so tried in one mode.
MASKED_TOO = {
    "landlock paths": (("landlock_add_rule",), "landlock"),
    "signals by pidfd": (("pidfd_send_signal",), "pidfd"),
    "capset": (("capset",), "capabilities"),
    "session": (("setsid",), ""),
}


@pytest.mark.parametrize(
    ("what", "mode"),
    [
        *((what, mode) for what in MASKED for mode in ("root-full", "nobody-full", "nobody-reduced")),
        *((what, "nobody-full") for what in MASKED_TOO),
    ],
)
def test_with_a_means_masked_no_line_of_the_plugin_runs(mode: str, what: str, tmp_path: Path) -> None:
    calls, named = (MASKED | MASKED_TOO)[what]
    traces = tmp_path / "traces"
    traces.mkdir()
    traces.chmod(0o777)
    code = f"open({str(traces / 'ran')!r}, 'w').close()\ndef run(params): return 1"
    said = drive(
        mode, tmp_path, {"run": ""}, {"write": [str(traces)]}, code=code, before=[str(HERE / "masked.py"), *calls, "--"]
    )
    assert said["refused"]["code"] == "sandbox_unavailable"
    assert named in said["refused"]["message"]
    assert not list(traces.iterdir())


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        ("root-full", "unshare"),
        ("nobody-full", "unshare"),
        ("root-full", "mount"),
        ("nobody-full", "pivot_root"),
        ("root-full", "mount_setattr"),
        ("nobody-full", "setns"),
    ],
)
def test_without_namespaces_it_is_the_policys_choice(mode: str, call: str, tmp_path: Path) -> None:
    before = [str(HERE / "masked.py"), call, "--"]
    said = drive(mode, tmp_path, {"one": "1"}, before=before)
    assert (said["level"], said["one"]) == ("reduced", 1)
    refused = drive(mode, tmp_path, {"one": "1"}, {"full": True}, before=before)["refused"]
    assert refused["code"] == "sandbox_unavailable"
    assert "namespace" in refused["message"]
    assert "EPERM" in refused["message"]
    assert "unprivileged user namespaces" in refused["hint"]


@pytest.mark.parametrize("mode", ["root-full", "nobody-reduced"])
def test_descriptors_are_closed_one_by_one_where_they_cannot_be_at_once(mode: str, tmp_path: Path) -> None:
    tries = {"open": "[fd for fd in range(5, 300) if (lambda: [os.fstat(fd)] and True)()]", "one": "1"}
    said = drive(mode, tmp_path, tries, before=[str(HERE / "masked.py"), "close_range", "--"])
    assert said["one"] == 1
    assert said["open"].startswith("OSError")  # the very first is not open
