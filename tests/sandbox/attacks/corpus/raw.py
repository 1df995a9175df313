"""System calls that Python does not offer, for the attacks beside this file. No attack itself."""

import ctypes
import os
import platform

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
#: By name, for x86_64 and for aarch64.
_NUMBERS = """
add_key 248 217, bpf 321 280, fanotify_init 300 262, init_module 175 105, kcmp 312 272, keyctl 250 219, setns 308 268,
memfd_create 319 279, mount 165 40, move_pages 279 239, msgget 68 186, name_to_handle_at 303 264, ptrace 101 117,
open_by_handle_at 304 265, perf_event_open 298 241, personality 135 92, process_vm_readv 310 270, prctl 157 167,
rt_sigqueueinfo 129 138, semget 64 190, shmget 29 194, syslog 103 116, unshare 272 97, userfaultfd 323 282,
inotify_init1 294 26, tkill 200 130, chroot 161 51, pidfd_open 434 434, pidfd_getfd 438 438, io_uring_setup 425 425,
clone3 435 435, open_tree 428 428,
timer_create 222 107, ioprio_set 251 30, renameat2 316 276,
seccomp 317 277, fsopen 430 430, process_madvise 440 440, memfd_secret 447 447
"""
_COLUMN = {"x86_64": 1, "aarch64": 2}[platform.machine()]
_NUMBER = {row.split()[0]: int(row.split()[_COLUMN]) for row in _NUMBERS.split(",")}


def syscall(name, *args):
    """One system call; raises OSError."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = _libc.syscall(ctypes.c_long(_NUMBER[name]), *words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def text(value):
    """A C string."""
    return ctypes.c_char_p(os.fsencode(value))
