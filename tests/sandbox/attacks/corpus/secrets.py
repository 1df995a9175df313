"""What the host knows: its environment, its memory, its open files."""

import ctypes
import gc
import os

from .raw import syscall


def read_the_environment(planted):
    """Looks for the secret in the variables that it was given.

    Stopped by: a clean environment.
    """
    return os.environ.get(planted["variable"])


def read_the_hosts_environment(planted):
    """Reads the variables of the host's process.

    Stopped by: mount namespace (no /proc); Landlock; another user.
    """
    with open(f"/proc/{planted['host']}/environ", "rb") as file:
        return planted["variable"] if planted["variable"].encode() in file.read() else None


def read_the_parents_environment(planted):
    """Reads the variables of whatever started it.

    Stopped by: mount namespace (no /proc); Landlock; not dumpable.
    """
    with open(f"/proc/{os.getppid()}/environ", "rb") as file:
        return planted["variable"] if planted["variable"].encode() in file.read() else None


def read_inherited_files(planted):
    """Reads whatever is open.

    Stopped by: close_range.
    """
    for fd in range(5, 256):
        try:
            found = os.pread(fd, 200, 0)
        except OSError:
            continue
        if b"secret" in found:
            return found.decode()
    return None


def read_the_hosts_memory(planted):
    """Reads the host's memory through /proc.

    Stopped by: mount namespace (no /proc); Landlock; another user.
    """
    with open(f"/proc/{planted['host']}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    with open(f"/proc/{planted['host']}/mem", "rb") as memory:
        memory.seek(start)
        return memory.read(4).hex()


def read_memory_by_call(planted):
    """Reads another process's memory with process_vm_readv.

    Stopped by: seccomp; pid namespace; another user.
    """
    with open(f"/proc/{planted['victim']}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(4)
    here = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 4)
    there = (ctypes.c_uint64 * 2)(start, 4)
    syscall("process_vm_readv", planted["victim"], here, 1, there, 1, 0)
    return buffer.raw.hex()


def read_memory_blindly(planted):
    """Tries process_vm_readv without /proc: a call that is let through fails for the address only.

    Stopped by: seccomp; pid namespace; another user.
    """
    empty = (ctypes.c_uint64 * 2)(0, 0)
    return syscall("process_vm_readv", planted["victim"], empty, 0, empty, 0, 0) == 0 or None


def take_a_descriptor(planted):
    """Takes an open file out of another process.

    Stopped by: seccomp; pid namespace; another user.
    """
    return syscall("pidfd_getfd", syscall("pidfd_open", planted["victim"], 0), 0, 0)


def search_its_own_memory(planted):
    """Looks for a secret that the host left in what it forked from.

    Stopped by: an exec'ed zygote.
    """
    for found in gc.get_objects():
        for value in list(found.values()) if isinstance(found, dict) else ():
            if isinstance(value, dict) and planted["variable"] in value:
                return value[planted["variable"]]
    return None


def compare_with_the_host(planted):
    """Finds out whether two processes share what the kernel holds.

    Stopped by: seccomp; pid namespace.
    """
    syscall("kcmp", planted["victim"], os.getpid(), 1, 0, 0)
    return "compared"
