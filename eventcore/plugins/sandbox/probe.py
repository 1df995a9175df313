"""What this machine's kernel really enforces: each means is tried on something that it must forbid, in a child.

Runs in the zygote before it serves anybody; standard library only. A version number is no proof: a container, a
security module or an administrator may have taken a means away.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from eventcore.plugins.sandbox.linux import calls, landlock, namespaces, seccomp

#: How long one trial may take. Seconds.
_TRIAL = 5.0
_UNSUPPORTED = OSError(errno.EOPNOTSUPP, "the kernel let through what it should have refused")


@dataclass(frozen=True, slots=True)
class Means:
    """One means of the kernel.

    Attributes:
        name: what it is called in messages.
        needed: `always`, `full` (without it the sandbox is `reduced`) or `grant` (only for some permissions).
        stops: what it is there for.
        remedy: what an operator can do where it is missing.
        trial: raises OSError unless the means works; returns a word about it.
    """

    name: str
    needed: str
    stops: str
    remedy: str
    trial: Callable[[str], str]


def _no_new_privs(_: str) -> str:
    calls.prctl(calls.PR_SET_NO_NEW_PRIVS, 1)
    if calls.prctl(39) != 1:  # PR_GET_NO_NEW_PRIVS
        raise _UNSUPPORTED
    return ""


def _filter(_: str) -> str:
    _no_new_privs("")
    seccomp.install(seccomp.program(calls.arch(), seccomp.Allowed(os.getpid())))
    _refused(lambda: os.kill(os.getppid(), 0), errno.EPERM)
    _refused(lambda: calls.syscall("unshare", calls.CLONE_NEWUSER), errno.EPERM)
    _refused(lambda: socket.socket().close(), errno.EPERM)
    return f"{len(seccomp.program(calls.arch(), seccomp.Allowed(1))) // 8} instructions"


def _landlock(folder: str) -> str:
    abi = landlock.abi()
    _no_new_privs("")
    landlock.restrict(abi, [(folder, landlock.READ)])
    os.listdir(folder)
    _refused(lambda: os.listdir("/"), errno.EACCES)
    _refused(lambda: os.open(folder + "/new", os.O_CREAT | os.O_WRONLY), errno.EACCES)
    if abi < 2:
        raise OSError(errno.EOPNOTSUPP, f"ABI {abi}; 2 is needed (Linux 5.19)")
    return f"ABI {abi}"


def _landlock_tcp(folder: str) -> str:
    if landlock.abi() < 4:
        raise OSError(errno.EOPNOTSUPP, f"ABI {landlock.abi()}; 4 is needed (Linux 6.7)")
    _no_new_privs("")
    landlock.restrict(landlock.abi(), [], [1])
    with socket.socket() as sock:
        _refused(lambda: sock.connect(("127.0.0.1", 2)), errno.EACCES)
    return ""


def _pidfd(_: str) -> str:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        fd = os.pidfd_open(pid)
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        if not select.select([fd], [], [], 2)[0]:
            raise _UNSUPPORTED
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return ""


def _rlimits(_: str) -> str:
    size = 64 << 20
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + size, now + size))
    try:
        ctypes.create_string_buffer(2 * size)
    except MemoryError:
        return ""
    raise _UNSUPPORTED


def _own_user(_: str) -> str:
    uid = reserved_uid("probe")
    if uid is None:
        raise OSError(errno.EPERM, "only root can become another user")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _refused(lambda: os.setresuid(0, 0, 0), errno.EPERM)
    return f"uid {uid}"


def _user_namespace(_: str) -> str:
    if os.geteuid() == 0:
        return "not needed as root"
    namespaces.enter_user()
    return ""


def _pid_namespace(_: str) -> str:
    _inside()
    calls.unshare(calls.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        _in_pid_namespace()
    if number := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(number, os.strerror(number)) if number > 0 else _UNSUPPORTED
    return ""


def _in_pid_namespace() -> NoReturn:
    """As the zygote does: make another one beneath, and come back for the next."""
    number = errno.EOPNOTSUPP
    try:
        if os.getpid() == 1:
            home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            calls.unshare(calls.CLONE_NEWPID)
            calls.setns(home, calls.CLONE_NEWPID)
            number = 0
    except OSError as error:
        number = error.errno or number
    finally:
        os._exit(number)


def _network_namespace(_: str) -> str:
    _inside()
    calls.unshare(calls.CLONE_NEWNET)
    with socket.socket() as sock:
        _refused(lambda: sock.connect(("127.0.0.1", 1)), errno.ENETUNREACH)
    return ""


def _view(folder: str) -> str:
    _inside()
    namespaces.leave_host(network=True)
    namespaces.build_view(folder, (), (), (), 1 << 20, None)
    _refused(lambda: os.stat("/proc"), errno.ENOENT)
    _refused(lambda: os.open("/new", os.O_CREAT | os.O_WRONLY), errno.EROFS)
    return ""


def _inside() -> None:
    if os.geteuid() != 0:
        namespaces.enter_user()


def _refused(action: Callable[[], Any], expected: int) -> None:
    try:
        action()
    except OSError as error:
        if error.errno == expected:
            return
        raise
    raise _UNSUPPORTED


_USERNS = (
    "unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0, on "
    "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0, in a container a seccomp profile that lets unshare through"
)
_LANDLOCK = "a kernel of 5.19 or later with CONFIG_SECURITY_LANDLOCK, and landlock in the boot option lsm="
_SECCOMP = "a kernel with CONFIG_SECCOMP_FILTER, and in a container a profile that lets seccomp through"
_ROOT = "to start the host as root; or nothing, where user namespaces work"

#: In the order in which `eventcore sandbox check` shows them.
MEANS: tuple[Means, ...] = (
    Means("no_new_privs", "always", "rights gained through set-user-id programs", "Linux 3.5 or later", _no_new_privs),
    Means("seccomp", "always", "system calls that are not on the list", _SECCOMP, _filter),
    Means("landlock", "always", "files outside of the granted ones", _LANDLOCK, _landlock),
    Means("pidfd", "always", "a kill that misses", "Linux 5.3 or later", _pidfd),
    Means("rlimits", "always", "memory, threads, files without end", "a kernel that honours setrlimit", _rlimits),
    Means("user namespace", "full", "another plugin's threads counted as ours", _USERNS, _user_namespace),
    Means("pid namespace", "full", "processes that outlive their worker", _USERNS, _pid_namespace),
    Means("mount namespace", "full", "seeing that host files exist", _USERNS, _view),
    Means("network namespace", "full", "any interface of the host", _USERNS, _network_namespace),
    Means("own user", "root", "what the host's own user may do", _ROOT, _own_user),
    Means("landlock tcp", "grant", "TCP ports that were not granted", "Linux 6.7 or later", _landlock_tcp),
)


def reserved_uid(name: str) -> int | None:
    """A user id that belongs to no person, by a name; None where we are not root or have none to give away."""
    if os.geteuid() != 0:
        return None
    with open("/proc/self/uid_map", encoding="ascii") as file:
        inside, _, count = (int(word) for word in file.readline().split())
    end = min(inside + count, 1 << 31)
    digest = 0
    for byte in name.encode():
        digest = (digest * 131 + byte) % 65521
    return end - 65536 + digest if end >= 131072 else end - 5000 + digest % 4093 if end >= 65536 else None


def probe(folder: str) -> list[dict[str, Any]]:
    """Try all means.

    Args:
        folder: an empty folder of our own.

    Returns:
        Rows of `name`, `needed`, `stops`, `remedy`, `works`, `errno` and `detail`.
    """
    return [_row(means, *_in_child(lambda means=means: means.trial(folder))) for means in MEANS]  # type: ignore[misc]


def _row(means: Means, works: bool, number: int, detail: str) -> dict[str, Any]:
    row = {name: getattr(means, name) for name in ("name", "needed", "stops", "remedy")}
    return row | {"works": works, "errno": errno.errorcode.get(number, str(number)) if number else "", "detail": detail}


def _in_child(trial: Callable[[], str]) -> tuple[bool, int, str]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try(trial, write)
    os.close(write)
    said = b""
    if select.select([read], [], [], _TRIAL)[0]:
        said = os.read(read, 4096)
    os.close(read)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not said:
        return False, 0, f"the trial ended with status {status}"
    works, number, detail = json.loads(said)
    return works, number, detail


def _try(trial: Callable[[], str], write: int) -> None:
    answer: tuple[bool, int, str]
    try:
        answer = True, 0, trial()
    except OSError as error:
        answer = False, error.errno or 0, error.strerror or str(error)
    except BaseException as error:  # noqa: BLE001 - a trial that breaks is one that did not succeed
        answer = False, 0, repr(error)[:200]
    try:
        os.write(write, json.dumps(answer).encode())
        signal.pause()  # the parent ends us: after a trial not even an exit is sure to be allowed
    finally:
        os._exit(0)
