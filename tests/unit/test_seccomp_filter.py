"""The filter that workers run under, executed instruction by instruction as the kernel would; and its tables."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from eventcore.plugins.sandbox.linux import bpf
from eventcore.plugins.sandbox.linux.bpf import ALLOW, KILL_PROCESS, Masked, Rule
from eventcore.plugins.sandbox.linux.seccomp import Allowed, program
from eventcore.plugins.sandbox.linux.tables import ARCHS, Arch

EPERM, ENOSYS, ENOTSUP = bpf.errno(1), bpf.errno(38), bpf.errno(95)
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def run(code: bytes, number: int, audit: int, *args: int) -> int:
    """What the kernel would do: a classic BPF machine over `struct seccomp_data`."""
    data = struct.pack("<iIQ6Q", number & 0x7FFFFFFF, audit, 0, *(args + (0,) * (6 - len(args))))
    steps = [struct.unpack_from("<HBBI", code, at) for at in range(0, len(code), 8)]
    accumulator, at = 0, 0
    while True:
        op, true, false, k = steps[at]
        at += 1
        match op:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x05:
                at += k
            case 0x15:
                at += true if accumulator == k else false
            case 0x35:
                at += true if accumulator >= k else false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"no such instruction: {op:#x}")


@pytest.fixture(params=list(ARCHS))
def arch(request: pytest.FixtureRequest) -> Arch:
    return ARCHS[request.param]


def verdict(arch: Arch, name: str, *args: int, allowed: Allowed | None = None) -> int:
    return run(program(arch, allowed or Allowed(2)), arch.calls[name], arch.audit, *args)


@pytest.mark.parametrize("name", ["read", "openat", "futex", "mmap", "epoll_ctl", "exit_group", "rt_sigreturn"])
def test_the_usual_is_allowed(arch: Arch, name: str) -> None:
    assert verdict(arch, name) == ALLOW


@pytest.mark.parametrize(
    "name",
    "ptrace mount bpf perf_event_open keyctl add_key io_uring_setup userfaultfd unshare setns memfd_create "
    "fanotify_init pivot_root execve execveat socket connect bind listen rt_sigqueueinfo tkill setrlimit pidfd_open "
    "seccomp landlock_restrict_self chown fork vfork".split(),
)
def test_the_rest_is_not(arch: Arch, name: str) -> None:
    if name in arch.calls:
        assert verdict(arch, name) == EPERM


def test_what_programs_do_without_when_it_is_absent(arch: Arch) -> None:
    assert verdict(arch, "clone3") == ENOSYS
    assert verdict(arch, "getxattr") == ENOTSUP
    assert run(program(arch, Allowed(2)), 9999, arch.audit) == ENOSYS


def test_other_architectures_and_x32_end_the_process() -> None:
    x86, arm = ARCHS["x86_64"], ARCHS["aarch64"]
    code = program(x86, Allowed(2))
    i386 = 0x40000003
    assert run(code, 0, i386) == run(code, 0, arm.audit) == KILL_PROCESS
    assert run(code, 0x40000000 | x86.calls["read"], x86.audit) == KILL_PROCESS
    assert run(program(arm, Allowed(2)), 0, x86.audit) == KILL_PROCESS


def test_signals_go_to_oneself_only(arch: Arch) -> None:
    for name in ("kill", "tgkill"):
        assert verdict(arch, name, 2, 9) == ALLOW
        assert verdict(arch, name, 1, 9) == verdict(arch, name, 2**32 - 1, 9) == EPERM


def test_where_others_can_be_named_nothing_is_told_of_them(arch: Arch) -> None:
    among = Allowed(2, alone=False)
    of_77 = 2**32 - (77 << 3) - 6  # the clock of its CPU time, as a 32-bit number below zero
    for name in ("getpgid", "getsid", "sched_getaffinity", "sched_getscheduler", "get_robust_list"):
        if name in arch.calls:
            assert verdict(arch, name, 77) == ALLOW
            assert verdict(arch, name, 77, allowed=among) != ALLOW
            assert verdict(arch, name, 0, allowed=among) == verdict(arch, name, 2, allowed=among) == ALLOW
    assert verdict(arch, "getpriority", 0, 77, allowed=among) != ALLOW
    for name in ("clock_gettime", "timer_create", "clock_nanosleep"):
        assert verdict(arch, name, of_77) == verdict(arch, name, 2, allowed=among) == ALLOW
        assert verdict(arch, name, of_77, allowed=among) != ALLOW


def test_threads_but_no_processes_and_no_namespaces(arch: Arch) -> None:
    thread = 0x3D0F00  # what glibc gives for a thread
    assert verdict(arch, "clone", thread) == ALLOW
    assert verdict(arch, "clone", 17) == EPERM
    for new in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
        assert verdict(arch, "clone", thread | new) == EPERM
    programs = Allowed(2, programs=True)
    assert verdict(arch, "clone", 17, allowed=programs) == verdict(arch, "execve", allowed=programs) == ALLOW
    assert verdict(arch, "clone", 17 | 0x10000000, allowed=programs) == EPERM
    assert verdict(arch, "kill", 77, 9, allowed=programs) == ALLOW  # within its pid namespace


def test_sockets_only_for_tcp_and_only_if_granted(arch: Arch) -> None:
    inet, inet6, unix, stream, datagram, mptcp = 2, 10, 1, 1, 2, 262
    tcp = Allowed(2, tcp=True)
    for family in (inet, inet6):
        assert verdict(arch, "socket", family, stream, 0) == EPERM
        for kind in (stream, stream | 0o2000000, stream | 0o4000):
            assert verdict(arch, "socket", family, kind, 0, allowed=tcp) == ALLOW
            assert verdict(arch, "socket", family, kind, 6, allowed=tcp) == ALLOW
        assert verdict(arch, "socket", family, stream, mptcp, allowed=tcp) == EPERM
        assert verdict(arch, "socket", family, datagram, 0, allowed=tcp) == EPERM
        assert verdict(arch, "socket", family, 3, 1, allowed=tcp) == EPERM
    assert verdict(arch, "socket", unix, stream, 0, allowed=tcp) == EPERM
    assert verdict(arch, "connect", allowed=tcp) == ALLOW
    assert verdict(arch, "bind", allowed=tcp) == EPERM
    assert verdict(arch, "socketpair", unix, stream, 0) == ALLOW
    assert verdict(arch, "socketpair", inet, stream, 0) == EPERM


def test_limits_can_be_read_and_not_set(arch: Arch) -> None:
    assert verdict(arch, "prlimit64", 0, 7, 0, 0x7FFF00001000) == ALLOW
    assert verdict(arch, "prlimit64", 0, 7, 0x7FFF00000000, 0) == EPERM
    assert verdict(arch, "prlimit64", 0, 7, 0x7FFF << 32, 0) == EPERM  # the upper half alone counts too
    assert verdict(arch, "prlimit64", 1, 7, 0, 0x7FFF00001000) == EPERM


def test_what_the_kernel_is_too_old_for_is_closed_here(arch: Arch) -> None:
    assert verdict(arch, "truncate") == ALLOW
    assert verdict(arch, "truncate", allowed=Allowed(2, truncate=False)) == EPERM
    assert verdict(arch, "fchmod") == ALLOW
    for name in ("fchmod", "fchmodat", "utimensat"):  # accepted, and nothing done
        assert verdict(arch, name, allowed=Allowed(2, metadata=False)) == bpf.errno(0)


def test_nothing_gets_the_rights_of_its_owner(arch: Arch) -> None:
    making, reading = 0o101, 0
    assert verdict(arch, "openat", 9, 0, making, 0o644) == ALLOW
    assert verdict(arch, "openat", 9, 0, reading, 0o7777) == ALLOW  # open looks at the mode only when it makes
    for mode in (0o4755, 0o2755, 0o6000):
        assert verdict(arch, "openat", 9, 0, making, mode) == EPERM
        assert verdict(arch, "openat", 9, 0, 0o20200002, mode) == EPERM  # O_TMPFILE
        assert verdict(arch, "fchmod", 3, mode) == EPERM
        assert verdict(arch, "fchmodat", 9, 0, mode) == EPERM
    assert verdict(arch, "fchmodat", 9, 0, 0o1777) == ALLOW


def test_a_pair_of_sockets_reaches_nobody_else(arch: Arch) -> None:
    unix, stream, datagram, sequenced = 1, 1, 2, 5
    assert verdict(arch, "socketpair", unix, stream | 0o2004000) == ALLOW
    assert verdict(arch, "socketpair", unix, sequenced) == ALLOW
    assert verdict(arch, "socketpair", unix, datagram) == EPERM


def test_what_is_sent_connects_nowhere(arch: Arch) -> None:
    fast_open, tcp = 0x20000000, Allowed(2, tcp=True)
    assert verdict(arch, "sendto", 3, 0, 7, 0x4000, allowed=tcp) == ALLOW
    assert verdict(arch, "sendto", 3, 0, 7, fast_open, allowed=tcp) == EPERM
    assert verdict(arch, "sendmsg", 3, 0, fast_open, allowed=tcp) == EPERM


def test_a_byte_beside_the_stream_is_refused(arch: Arch) -> None:
    for allowed in (Allowed(2), Allowed(2, tcp=True)):
        assert verdict(arch, "sendto", 3, 0, 7, 0x4000, allowed=allowed) == ALLOW
        assert verdict(arch, "sendto", 3, 0, 7, 1, allowed=allowed) == EPERM
        assert verdict(arch, "sendmsg", 3, 0, 0x4001, allowed=allowed) == EPERM


def test_room_on_a_disk_is_given_back_and_not_reserved(arch: Arch) -> None:
    punch_hole, keep_size = 3, 1
    assert verdict(arch, "fallocate", 3, punch_hole) == ALLOW
    for mode in (0, keep_size, 0x10, 0x11, 8, 0x20):
        assert verdict(arch, "fallocate", 3, mode) == ENOTSUP


def test_renaming_leaves_no_device_behind(arch: Arch) -> None:
    for flags in (0, 1, 2):
        assert verdict(arch, "renameat2", 9, 0, 9, 0, flags) == ALLOW
    for flags in (4, 5, 8):
        assert verdict(arch, "renameat2", 9, 0, 9, 0, flags) == bpf.errno(22)


def test_threads_share_their_open_files(arch: Arch) -> None:
    """One table of a process is looked at."""
    thread, files = 0x10000 | 0x100 | 0x800, 0x400
    for allowed in (Allowed(2), Allowed(2, programs=True)):
        assert verdict(arch, "clone", thread | files, allowed=allowed) == ALLOW
        assert verdict(arch, "clone", thread, allowed=allowed) == EPERM
        assert verdict(arch, "close_range", 3, 9, 0, allowed=allowed) == ALLOW
        assert verdict(arch, "close_range", 3, 9, 2, allowed=allowed) == EPERM  # CLOSE_RANGE_UNSHARE
    assert verdict(arch, "clone", 17, allowed=Allowed(2, programs=True)) == ALLOW
    assert verdict(arch, "clone", 17) == EPERM


def test_ioctls_that_push_keys_into_a_terminal_are_refused(arch: Arch) -> None:
    assert verdict(arch, "ioctl", 0, 0x5401) == ALLOW
    assert verdict(arch, "ioctl", 0, 0x5412) == EPERM  # TIOCSTI
    assert verdict(arch, "prctl", 15) == ALLOW
    for option in (1, 4, 22, 38):  # PDEATHSIG, DUMPABLE, SECCOMP, NO_NEW_PRIVS
        assert verdict(arch, "prctl", option) == EPERM


def test_every_jump_stays_inside(arch: Arch) -> None:
    for allowed in (Allowed(2), Allowed(2, programs=True, tcp=True)):
        code = program(arch, allowed)
        assert len(code) // 8 < 4096
        for index in range(len(code) // 8):
            op, true, false, k = struct.unpack_from("<HBBI", code, 8 * index)
            targets = (true, false) if op in (0x15, 0x35) else (k,) if op == 0x05 else ()
            assert all(index + 1 + step < len(code) // 8 for step in targets)


def test_many_plain_rules_and_conditions_on_both_halves() -> None:
    rules = [Rule(number, ALLOW) for number in range(450)]
    rules.append(Rule(500, ALLOW, [[Masked(0, 5 << 32 | 7, 0xFFFFFFFFFFFFFFFF)]]))
    code = bpf.assemble(1, rules, x32=False, known=600, unknown=ENOSYS, default=EPERM)
    assert {run(code, number, 1) for number in range(450)} == {ALLOW}
    assert run(code, 451, 1) == EPERM
    assert run(code, 600, 1) == ENOSYS
    assert run(code, 500, 1, 5 << 32 | 7) == ALLOW
    assert run(code, 500, 1, 7) == run(code, 500, 1, 6 << 32 | 7) == EPERM
    with pytest.raises(ValueError, match="too long"):
        bpf.assemble(1, [Rule(1, ALLOW, [[Masked(0, n)] for n in range(99)])], x32=False, known=9, unknown=0, default=0)


@pytest.mark.parametrize("machine", list(ARCHS))
def test_the_tables_are_the_kernels(machine: str) -> None:
    if not HEADERS[machine].is_file():
        pytest.skip(f"needs {HEADERS[machine]}; install linux-libc-dev")
    text = HEADERS[machine].read_text()
    theirs = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", text)}
    theirs.setdefault("newfstatat", theirs.get("fstatat", -1))
    ours = dict(ARCHS[machine].calls)
    assert ours.pop("fchmodat2") == 452  # newer than some headers
    assert ours == {name: theirs[name] for name in ours}
