"""System calls that Python does not offer, for the attacks beside this file. No attack itself."""

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_LATE = dict(pidfd_open=434, pidfd_getfd=438, io_uring_setup=425, clone3=435, open_tree=428, fsopen=430)
_LATE |= dict(process_madvise=440, mount_setattr=442, memfd_secret=447, landlock_create_ruleset=444)
_NUMBERS = {
    "x86_64": dict(
        add_key=248, bpf=321, fanotify_init=300, init_module=175, kcmp=312, keyctl=250, memfd_create=319, mount=165,
        move_pages=279, mq_open=240, msgget=68, name_to_handle_at=303, open_by_handle_at=304, perf_event_open=298,
        personality=135, pivot_root=155, process_vm_readv=310, process_vm_writev=311, ptrace=101, quotactl=179,
        rt_sigqueueinfo=129, semget=64, setns=308, setxattr=188, shmget=29, swapon=167, syslog=103, unshare=272,
        userfaultfd=323, inotify_init1=294, prctl=157, ioprio_set=251, sched_setscheduler=144, tkill=200, chroot=161,
        setpriority=141, vfork=58, request_key=249, acct=163, modify_ldt=154, ioperm=173, clock_adjtime=305,
    ),
    "aarch64": dict(
        add_key=217, bpf=280, fanotify_init=262, init_module=105, kcmp=272, keyctl=219, memfd_create=279, mount=40,
        move_pages=239, mq_open=180, msgget=186, name_to_handle_at=264, open_by_handle_at=265, perf_event_open=241,
        personality=92, pivot_root=41, process_vm_readv=270, process_vm_writev=271, ptrace=117, quotactl=60,
        rt_sigqueueinfo=138, semget=190, setns=268, setxattr=5, shmget=194, swapon=224, syslog=116, unshare=97,
        userfaultfd=282, inotify_init1=26, prctl=167, ioprio_set=30, sched_setscheduler=119, tkill=130, chroot=51,
        setpriority=140, request_key=218, acct=89, clock_adjtime=266,
    ),
}[platform.machine()] | _LATE  # fmt: skip


def syscall(name, *args):
    """One system call; raises OSError."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = _libc.syscall(ctypes.c_long(_NUMBERS[name]), *words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def text(value):
    """A C string."""
    return ctypes.c_char_p(os.fsencode(value))
