"""Which system calls a worker may make: an allow-list, for only that is a finite answer to a kernel's surface.

What is not on the list fails with EPERM, or ENOSYS where programs know what to do then; calls of another architecture
and of the x32 table end the process. `rules` is pure; `install` loads a program into the calling thread, for good.
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass

from eventcore.plugins.sandbox.linux import bpf, calls
from eventcore.plugins.sandbox.linux.bpf import ALLOW, Masked, Rule
from eventcore.plugins.sandbox.linux.tables import Arch

_MEMORY = "mmap munmap mremap mprotect madvise msync mincore brk membarrier rseq"
_FILES = (
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close lseek stat "
    "fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir "
    "fchdir dup dup2 dup3 flock fsync fdatasync sync_file_range ftruncate fadvise64 readahead sendfile "
    "copy_file_range splice tee mkdir mkdirat rmdir unlink unlinkat rename renameat link linkat symlink "
    "symlinkat umask statfs fstatfs"
)
_WAITING = (
    "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd "
    "eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime pipe pipe2 futex futex_waitv nanosleep "
    "clock_nanosleep clock_gettime clock_getres gettimeofday time times sched_yield pause"
)
_SIGNALS = (
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack alarm setitimer "
    "getitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete restart_syscall"
)
_OWN = (
    "exit exit_group getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp "
    "sched_get_priority_max sched_get_priority_min getrlimit getrusage sysinfo uname getrandom getcpu capget "
    "set_robust_list set_tid_address"
)
#: What they tell of a process, and which argument names it: any, outside of a pid namespace.
_TOLD = dict.fromkeys(
    "getpgid getsid sched_getaffinity sched_getparam sched_getscheduler sched_rr_get_interval get_robust_list".split(),
    0,
) | {"getpriority": 1}
#: And by the clock of its CPU time; the number of such a clock is negative.
_CLOCKS = ("clock_gettime", "clock_getres", "clock_nanosleep", "timer_create")
_NEGATIVE = 0x80000000
#: On sockets that exist: the channel, and pairs that the code makes itself.
_SOCKETS = "recvfrom recvmsg shutdown getsockname getpeername"
#: Which argument holds the flags.
_SENDING = {"sendto": 3, "sendmsg": 2}
_SERVED = "connect"
#: Landlock does not look at these.
_TIMES = "utime utimes utimensat futimesat"
_OWNER = "fchown"
_PROGRAMS = "fork vfork execve execveat wait4 waitid setpgid setsid arch_prctl"

#: Programs ask for these, and do without when they are not there.
_ABSENT = "clone3 openat2 fchmodat2 epoll_pwait2"
_NO_ATTRIBUTES = (
    "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr "
    "lremovexattr fremovexattr"
)
#: The last number that the list was made with knowledge of; beyond it a call does not exist.
_KNOWN = 470

_CLONE_THREAD = 0x10000
_CLONE_FILES = 0x400
#: A table of open files of a thread's own. `nameless.py` looks at one table a process.
_CLOSE_RANGE_UNSHARE = 2
_CLONE_NAMESPACES = 0x7E020000 | 0x80
_AF_UNIX, _AF_INET, _AF_INET6, _SOCK_STREAM, _SOCK_SEQPACKET = 1, 2, 10, 1, 5
#: A socket's type without SOCK_NONBLOCK and SOCK_CLOEXEC.
_TYPE = 0xFFFFFFFF & ~0o2004000
#: Connects as it sends, past the rule for connect.
_MSG_FASTOPEN = 0x20000000
#: A byte beside the stream: there is something to read for whoever waits, and nothing for who then reads.
_MSG_OOB = 1
#: All of renameat2 but RENAME_WHITEOUT, which leaves a device in the place of the file; Landlock does not look at that.
_RENAMES = 0xFFFFFFFF & ~3
#: Of fallocate, what gives room back: FALLOC_FL_PUNCH_HOLE with KEEP_SIZE. To reserve it costs no time, and with
#: KEEP_SIZE alone no limit of a file's size holds: one call takes all that is free, before anybody can look.
_PUNCH_HOLE = 3
#: O_CREAT and O_TMPFILE: only with them does open look at its mode.
_MAKING = 0o100 | 0o20000000
#: The bits that let a program run with its owner's or group's rights. A view is mounted nosuid, but what lies in a
#: granted folder is reached from outside as well, where it may belong to whoever runs the host.
_SET_ID = 0o6000
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA = 15, 16, 0x53564D41
#: TCGETS, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, TIOCGWINSZ: harmless, and the standard library uses them.
_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5451, 0x5450, 0x5413)
#: All but F_SETOWN, F_SETSIG and F_SETOWN_EX, which send signals; leases, which hold up others; F_SETPIPE_SZ, which
#: takes a mebibyte of the kernel's memory a pipe; and locks of open files (F_OFD_*), which are nobody's in /proc/locks,
#: where `lockwatch.py` counts the others.
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032, 1033, 1034)
#: Of SOL_SOCKET: what libraries set and ask for. Not: filters (SO_ATTACH_FILTER), handles of the process on the other
#: side (SO_PEERPIDFD), and whatever else a kernel has there.
_SET_OPTIONS = (2, 7, 8, 9, 10, 13, 15, 18, 20, 21, 66, 67)
_GET_OPTIONS = (*_SET_OPTIONS, 3, 4, 30, 38, 39)
#: Of TCP: NODELAY, MAXSEG, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, QUICKACK, USER_TIMEOUT. Not: ULP, which brings in TLS
#: and others, REPAIR, and the like.
_TCP_OPTIONS = (1, 2, 3, 4, 5, 6, 12, 18)
_SOL_SOCKET, _SOL_TCP, _SOL_IPV6, _TCP_INFO, _IPV6_V6ONLY = 1, 6, 41, 11, 26


@dataclass(frozen=True, slots=True)
class Allowed:
    """What beyond the usual a worker may do.

    Attributes:
        pid: its own id, as it sees it: signals go nowhere else.
        threads: whether it may start threads.
        programs: fork and exec; only inside a pid namespace of its own.
        tcp: socket() and connect() for TCP; which ports is Landlock's part.
        metadata: chmod and utime. Without it they are accepted and do nothing: most programs copy modes and times
            along with what they copy, few need them, and Landlock does not look at them.
        truncate: truncate by path; below Landlock ABI 3 nothing else stops it.
        owners: fchmod and fchown are real, whatever `metadata` says: on files that Landlock let it open.
        alone: it lives in a pid namespace of its own, where all processes that it can name are its own.
    """

    pid: int
    threads: bool = True
    programs: bool = False
    tcp: bool = False
    metadata: bool = True
    truncate: bool = True
    owners: bool = False
    alone: bool = True


def rules(arch: Arch, allowed: Allowed) -> list[Rule]:
    """The rules, the frequent calls first."""
    plain = " ".join((_WAITING, _FILES, _MEMORY, _SIGNALS, _OWN, _SOCKETS)).split()
    plain += _TIMES.split() if allowed.metadata else []
    plain += ["truncate"] if allowed.truncate else []
    plain += _PROGRAMS.split() if allowed.programs else []
    plain += [_OWNER] if allowed.owners else []
    plain += [_SERVED] if allowed.tcp else []
    plain += _TOLD if allowed.alone else []
    absent = {*_ABSENT.split(), *(() if allowed.alone else _CLOCKS)}
    found = [Rule(arch.calls[n], ALLOW) for n in dict.fromkeys(plain) if n in arch.calls and n not in absent]
    conditions = _conditional(allowed)
    found += [
        Rule(arch.calls[name], ALLOW, rows, otherwise=_OTHERWISE.get(name, bpf.errno(errno.EPERM)))
        for name, rows in conditions.items()
        if name in arch.calls
    ]
    found += [Rule(arch.calls[name], bpf.errno(errno.ENOSYS)) for name in _ABSENT.split() if name in arch.calls]
    found += [Rule(arch.calls[name], bpf.errno(errno.EOPNOTSUPP)) for name in _NO_ATTRIBUTES.split()]
    if not allowed.metadata:
        real = {"fchmod"} if allowed.owners else set()
        found += [
            Rule(arch.calls[name], bpf.errno(0))
            for name in (*_MODES, *_TIMES.split())
            if name in arch.calls and name not in real
        ]
    return found


#: What programs expect of a kernel that does not know an option.
_OTHERWISE = {name: bpf.errno(errno.ENOPROTOOPT) for name in ("setsockopt", "getsockopt")}
_OTHERWISE |= {name: bpf.errno(errno.ESRCH) for name in _TOLD} | {name: bpf.errno(errno.EINVAL) for name in _CLOCKS}
_OTHERWISE |= {"fallocate": bpf.errno(errno.EOPNOTSUPP), "renameat2": bpf.errno(errno.EINVAL)}
#: Which argument is the mode.
_MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2}


def _files(allowed: Allowed) -> dict[str, bpf.Rows]:
    result: dict[str, bpf.Rows] = {
        name: [[Masked(flags, 0, _MAKING)], [Masked(flags + 1, 0, _SET_ID)]]
        for name, flags in (("open", 1), ("openat", 2))
    }
    result["renameat2"] = [[Masked(4, 0, _RENAMES)]]
    result["fallocate"] = [[Masked(1, _PUNCH_HOLE)]]
    real = _MODES if allowed.metadata else {"fchmod": _MODES["fchmod"]} if allowed.owners else {}
    result |= {name: [[Masked(mode, 0, _SET_ID)]] for name, mode in real.items()}
    return result


def _itself(allowed: Allowed) -> dict[str, bpf.Rows]:
    """Where other processes can be named: nothing is told of them. Of its own threads then nothing either."""
    if allowed.alone:
        return {}
    told: dict[str, bpf.Rows] = {
        name: [[Masked(place, who)] for who in (0, allowed.pid)] for name, place in _TOLD.items()
    }
    return {**told, **{name: [[Masked(0, 0, _NEGATIVE)]] for name in _CLOCKS}}


def _options(allowed: Allowed) -> dict[str, bpf.Rows]:
    more = [(_SOL_TCP, name) for name in _TCP_OPTIONS] + [(_SOL_IPV6, _IPV6_V6ONLY)] if allowed.tcp else []
    setting = [(_SOL_SOCKET, name) for name in _SET_OPTIONS] + more
    asking = [(_SOL_SOCKET, name) for name in _GET_OPTIONS] + more + ([(_SOL_TCP, _TCP_INFO)] if allowed.tcp else [])
    return {
        name: [[Masked(1, level), Masked(2, option)] for level, option in rows]
        for name, rows in (("setsockopt", setting), ("getsockopt", asking))
    }


def _sending(allowed: Allowed) -> dict[str, bpf.Rows]:
    refused = _MSG_OOB | (_MSG_FASTOPEN if allowed.tcp else 0)
    return {name: [[Masked(flags, 0, refused)]] for name, flags in _SENDING.items()}


def _conditional(allowed: Allowed) -> dict[str, bpf.Rows]:
    # With programs there is a pid namespace, which no signal leaves.
    me = [] if allowed.programs else [[Masked(0, allowed.pid)]]
    result: dict[str, bpf.Rows] = {
        **_files(allowed),
        **_options(allowed),
        **_itself(allowed),
        **_sending(allowed),
        "tgkill": me,
        "kill": me,
        "close_range": [[Masked(2, 0, _CLOSE_RANGE_UNSHARE)]],
        "ioctl": [[Masked(1, code)] for code in _IOCTLS],
        "fcntl": [[Masked(1, code)] for code in _FCNTLS],
        "prctl": [[Masked(0, code)] for code in (_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA)],
        # No datagrams: a pair of those can send to any socket that has a name.
        "socketpair": [[Masked(0, _AF_UNIX), Masked(1, kind, _TYPE)] for kind in (_SOCK_STREAM, _SOCK_SEQPACKET)],
        # Reading limits is harmless; setting needs a pointer that the filter cannot look at, so it must be null.
        "prlimit64": [[Masked(0, 0), Masked(2, 0, 0xFFFFFFFFFFFFFFFF)]],
    }
    thread = Masked(0, _CLONE_THREAD | _CLONE_FILES, _CLONE_NAMESPACES | _CLONE_THREAD | _CLONE_FILES)
    if allowed.programs:
        result["clone"] = [[thread], [Masked(0, 0, (_CLONE_NAMESPACES & ~0x80) | _CLONE_THREAD)]]
    elif allowed.threads:
        result["clone"] = [[thread]]
    if allowed.tcp:
        # Protocol 0 or TCP: MPTCP would pass Landlock's rule by.
        stream = Masked(1, _SOCK_STREAM, _TYPE)
        result["socket"] = [
            [Masked(0, family), stream, Masked(2, protocol)] for family in (_AF_INET, _AF_INET6) for protocol in (0, 6)
        ]
    return result


def program(arch: Arch, allowed: Allowed) -> bytes:
    """The assembled filter."""
    return bpf.assemble(
        arch.audit,
        rules(arch, allowed),
        x32=arch.x32,
        known=_KNOWN,
        unknown=bpf.errno(errno.ENOSYS),
        default=bpf.errno(errno.EPERM),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


_SET_MODE_FILTER, _TSYNC = 1, 1


def install(code: bytes) -> None:
    """Put the filter in force, for all threads. Needs no_new_privs.

    Raises:
        OSError: the kernel refuses it.
    """
    value = _Program(len(code) // 8, code)
    calls.syscall("seccomp", _SET_MODE_FILTER, _TSYNC, ctypes.byref(value))
