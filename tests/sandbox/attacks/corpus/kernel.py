"""The kernel's surface: what an attacker needs before there is a bug to use."""

import ctypes
import mmap
import os
import platform
import socket

from .raw import syscall, text


def io_uring(planted):
    """Sets up io_uring, which opens files and sockets behind the calls a filter sees.

    Stopped by: seccomp.
    """
    return syscall("io_uring_setup", 1, ctypes.create_string_buffer(248))


def keyring(planted):
    """Leaves something in the kernel's keyring.

    Stopped by: seccomp.
    """
    return syscall("add_key", text("user"), text("mark"), text("data"), 4, -3)


def request_key(planted):
    """Asks the kernel for a key, which runs a program of the host.

    Stopped by: seccomp.
    """
    return syscall("keyctl", 0, -3, 1, 0, 0)


def bpf(planted):
    """Loads a program into the kernel. Needs root where that is switched off for others.

    Stopped by: seccomp; no capabilities.
    """
    attr = (ctypes.c_uint32 * 32)(2, 4, 4, 1)
    return syscall("bpf", 0, attr, 128)


def perf_event(planted):
    """Counts what the processor does.

    Stopped by: seccomp.
    """
    attr = (ctypes.c_uint64 * 16)()
    attr[0] = 1 | 112 << 32
    attr[5] = 0x61  # disabled, without kernel and hypervisor
    return syscall("perf_event_open", attr, 0, -1, -1, 0)


def userfaultfd(planted):
    """Gets a handle to stop the kernel in the middle of a copy.

    Stopped by: seccomp.
    """
    return syscall("userfaultfd", 1)


def fanotify(planted):
    """Watches who opens which file.

    Stopped by: seccomp.
    """
    return syscall("fanotify_init", 0x200, 0)


def inotify(planted):
    """Watches folders.

    Stopped by: seccomp.
    """
    return syscall("inotify_init1", 0)


def user_namespace(planted):
    """Becomes root in a user namespace of its own, which opens much of the kernel.

    Stopped by: seccomp.
    """
    syscall("unshare", 0x10000000)
    return "inside"


def other_namespace(planted):
    """Enters the namespaces of another process. Needs root.

    Stopped by: seccomp; mount namespace; no capabilities.
    """
    fd = os.open(f"/proc/{planted['victim']}/ns/net", os.O_RDONLY)
    syscall("setns", fd, 0)
    return "inside"


def mount(planted):
    """Mounts a file system. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    syscall("mount", text("none"), text(planted["workspace"]), text("tmpfs"), 0, None)
    return "mounted"


def new_mount_calls(planted):
    """Mounts by the newer calls. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    return syscall("fsopen", text("tmpfs"), 0)


def copy_the_mount_tree(planted):
    """Takes a copy of the mounts. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    return syscall("open_tree", -100, text("/"), 1)


def memory_file(planted):
    """Makes a file in memory, which limits on memory do not see, and which can be run.

    Stopped by: seccomp.
    """
    return syscall("memfd_create", text("hidden"), 0)


def secret_memory(planted):
    """Makes memory that even the host cannot look into.

    Stopped by: seccomp.
    """
    return syscall("memfd_secret", 0)


def shared_segment(planted):
    """Leaves a System V segment that outlives it.

    Stopped by: seccomp; IPC namespace.
    """
    found = syscall("shmget", 0, 4096, 0o1600)
    ctypes.CDLL(None).shmctl(found, 0, None)
    return found + 1


def message_queue(planted):
    """Makes a queue that outlives it.

    Stopped by: seccomp; IPC namespace; RLIMIT_MSGQUEUE.
    """
    found = syscall("msgget", 0, 0o1600)
    ctypes.CDLL(None).msgctl(found, 0, None)
    return found + 1


def semaphore(planted):
    """Makes semaphores that outlive it.

    Stopped by: seccomp; IPC namespace.
    """
    found = syscall("semget", 0, 1, 0o1600)
    ctypes.CDLL(None).semctl(found, 0, 0)
    return found + 1


def kernel_log(planted):
    """Reads the kernel's log, which holds addresses. Needs root on most systems.

    Stopped by: seccomp; no capabilities.
    """
    return syscall("syslog", 3, ctypes.create_string_buffer(4096), 4096)


def kernel_module(planted):
    """Loads a module (an empty one, which only asks whether it could). Needs root.

    Stopped by: seccomp; no capabilities.
    Needs: a kernel that takes modules.
    """
    try:
        syscall("init_module", ctypes.create_string_buffer(1), 0, text(""))
    except OSError as error:
        if error.errno != 8:  # ENOEXEC: it got as far as looking at the image
            raise
    return "could"


def no_randomness(planted):
    """Switches the randomness of addresses off.

    Stopped by: seccomp.
    """
    return syscall("personality", 0x0040000) + 1


def move_memory(planted):
    """Asks where pages of memory lie.

    Stopped by: seccomp.
    """
    return syscall("move_pages", 0, 0, None, None, None, 0) + 1


def advise_another(planted):
    """Drops another process's memory from its cache.

    Stopped by: seccomp; pid namespace.
    """
    fd = syscall("pidfd_open", planted["victim"], 0)
    return syscall("process_madvise", fd, (ctypes.c_uint64 * 2)(0, 4096), 0, 20, 0) + 1


def host_name(planted):
    """Sets the host's name (to what it is). Needs root.

    Stopped by: seccomp; UTS namespace; no capabilities.
    """
    socket.sethostname(socket.gethostname())
    return "set"


def _run(code):
    """Machine code in memory of our own; returns what it leaves in eax."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()


def old_gate(planted):
    """Calls the kernel by the gate of 32-bit programs, where each call has another number.

    Stopped by: seccomp (the architecture).
    """
    if platform.machine() != "x86_64":
        raise OSError("there is no such gate here")
    getpid = b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3"  # push rbx; mov eax, 20; int 0x80; pop rbx; ret
    result = _run(getpid)
    return result if result > 0 else None


def raw_call(planted):
    """Makes a forbidden call from machine code, past every wrapper.

    Stopped by: seccomp.
    """
    if platform.machine() != "x86_64":
        raise OSError("written for x86_64")
    # mov edi, 0x10000000 (CLONE_NEWUSER); mov eax, 272 (unshare); syscall; ret
    result = _run(b"\xbf\x00\x00\x00\x10\xb8\x10\x01\x00\x00\x0f\x05\xc3")
    return "inside" if result == 0 else None


def priority_of_io(planted):
    """Asks for the disk before everybody else. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    syscall("ioprio_set", 1, 0, 1 << 13)
    return "got it"


def secure_computing_notifier(planted):
    """Installs a filter of its own whose listener could answer calls in the kernel's place.

    Stopped by: seccomp.
    """
    syscall("prctl", 38, 1, 0, 0, 0)
    code = (ctypes.c_uint64 * 1)(0x7FFF0000_00000006)
    program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(code))
    return syscall("seccomp", 1, 8, program) or "installed"
