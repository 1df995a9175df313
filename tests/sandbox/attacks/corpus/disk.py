"""Room on the disk of the host that a look into the granted folder does not show, or shows too late."""

import array
import ctypes
import mmap
import os
import socket
import subprocess
import time

from .raw import syscall

_MIB = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def _made(planted, number):
    path = os.path.join(planted["workspace"], str(number))
    return path, os.open(path, os.O_CREAT | os.O_RDWR)


def _reserved(fd, mode, size):
    if _libc.fallocate(fd, mode, 0, size):
        raise OSError(ctypes.get_errno(), "fallocate")
    return os.fstat(fd).st_blocks * 512


def _without_names(planted):
    """Files of a third of the room each, unlinked before they are filled."""
    for number in range(9):
        path, fd = _made(planted, number)
        os.unlink(path)
        os.write(fd, bytes(planted["disk_mb"] * _MIB // 2))
        yield fd
        time.sleep(0.03)
    time.sleep(0.15)


def reserve_past_the_end(planted):
    """Reserves half a gibibyte behind the end of an empty file: no limit of a file's size holds there.

    Stopped by: seccomp (fallocate).
    """
    return _reserved(_made(planted, "reserved")[1], 1, 512 * _MIB)


def reserve_in_pieces(planted):
    """Reserves file after file, which costs no time, and answers before anybody can look.

    Stopped by: seccomp (fallocate).
    """
    return sum(_reserved(_made(planted, number)[1], 0, planted["disk_mb"] * _MIB) for number in range(20))


def fill_at_once(planted):
    """Fills the folder that it was granted three times over, and answers at once.

    Stopped by: the host, which looks before it passes an answer on.
    """
    room = bytes(planted["disk_mb"] * _MIB)
    return sum(os.write(_made(planted, number)[1], room) for number in range(6))


def hide_open_files(planted):
    """Fills files that are in no folder any more.

    Stopped by: the host, which looks what is open.
    """
    return len([*_without_names(planted)])


def hide_files_that_never_had_a_name(planted):
    """The same with O_TMPFILE.

    Stopped by: the host, which looks what is open.
    """
    kept = []
    for _ in range(9):
        kept.append(os.open(planted["workspace"], os.O_TMPFILE | os.O_RDWR, 0o600))
        os.write(kept[-1], bytes(planted["disk_mb"] * _MIB // 2))
        time.sleep(0.03)
    time.sleep(0.15)
    return len(kept)


def hide_mapped_files(planted):
    """Keeps them by a page of memory each, and closes them.

    Stopped by: the host, which looks what is mapped.
    """
    kept = []
    for fd in _without_names(planted):
        kept.append(mmap.mmap(fd, 4096))
        os.close(fd)
    return len(kept)


def hide_files_under_way(planted):
    """Keeps them in a socket that nobody reads, and closes them.

    Stopped by: the host, which looks what is under way.
    """
    here, there = socket.socketpair()
    kept = 0
    for fd in _without_names(planted):
        here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        os.close(fd)
        kept += 1
    return kept if there else None


def fill_by_a_program(planted):
    """Has a program fill the folder, and sleeps meanwhile: what computes nothing writes nothing?

    Stopped by: the host, which looks at programs, too.
    Granted: a program.
    """
    script = "x=0123456789abcdef; while [ ${#x} -lt 4000000 ]; do x=$x$x; done; i=0"
    script += f"; while [ $i -lt 16 ]; do echo $x > {planted['workspace']}/$i; i=$((i+1)); done"
    time.sleep(0.1)
    subprocess.run(["/bin/sh", "-c", script], check=True, timeout=5)
    return len(os.listdir(planted["workspace"])) > 12 or None


def whiteout(planted):
    """Leaves a device in the place of a file that it moves away.

    Stopped by: seccomp (RENAME_WHITEOUT); Landlock does not look at that.
    """
    path, _ = _made(planted, "moved")
    here = ctypes.c_int(-100)
    syscall("renameat2", here, os.fsencode(path), here, os.fsencode(path + "-away"), 4)
