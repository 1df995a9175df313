"""Taking more than was given: memory, time, files, disk, output; and ends that are no ends."""

import ctypes
import fcntl
import hashlib
import mmap
import os
import signal
import struct
import sys
import tempfile
import threading
import time

from .raw import syscall

_MIB = 1 << 20


def memory(planted):
    """Takes four times its memory.

    Stopped by: RLIMIT_AS.
    """
    return len(bytearray(planted["memory_mb"] * 4 * _MIB))


def memory_in_pieces(planted):
    """Takes its memory bit by bit.

    Stopped by: RLIMIT_AS.
    """
    pieces = []
    while len(pieces) < planted["memory_mb"] * 2:
        pieces.append(bytearray(_MIB))
    return len(pieces)


def memory_shared(planted):
    """Takes shared memory, which a limit on data does not see.

    Stopped by: RLIMIT_AS.
    """
    return len(mmap.mmap(-1, planted["memory_mb"] * 4 * _MIB))


def memory_of_threads(planted):
    """Takes memory as the stacks of threads.

    Stopped by: RLIMIT_AS; RLIMIT_NPROC.
    """
    threading.stack_size(planted["memory_mb"] * _MIB // 2)
    for _ in range(8):
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
    return "got it"


def memory_locked(planted):
    """Nails memory down.

    Stopped by: seccomp; RLIMIT_MEMLOCK.
    """
    block = ctypes.create_string_buffer(_MIB // 2)
    if ctypes.CDLL(None, use_errno=True).mlock(block, len(block)):
        raise OSError(ctypes.get_errno(), "mlock")
    return "locked"


def compute_for_ever(planted):
    """Never answers, in Python.

    Stopped by: the host's timer.
    """
    while True:
        pass


def compute_in_c(planted):
    """Never answers, in C code that lets nothing else of Python run.

    Stopped by: the host's timer.
    """
    return sum(range(10**13))


def compute_beside(planted):
    """Never answers, and keeps four threads busy.

    Stopped by: the host's timer.
    """
    for _ in range(4):
        threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"", b"", 10**8), daemon=True).start()
    while True:
        time.sleep(1)


def sleep_for_ever(planted):
    """Never answers, at rest.

    Stopped by: the host's timer.
    """
    while True:
        time.sleep(1000)


async def sleep_for_ever_politely(planted):
    """Never answers, as a coroutine.

    Stopped by: the host's timer.
    """
    import asyncio

    await asyncio.Event().wait()


def ignore_signals(planted):
    """Blocks all signals, and never answers.

    Stopped by: SIGKILL by pidfd.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        time.sleep(1000)


def stop_itself(planted):
    """Stops itself, so that it cannot even be asked.

    Stopped by: SIGKILL by pidfd.
    """
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(1000)


def refuse_to_end(planted):
    """Holds on in every way out of Python.

    Stopped by: SIGKILL by pidfd.
    """
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            continue


def one_large_file(planted):
    """Fills its private folder with one file.

    Stopped by: RLIMIT_FSIZE; the size of its tmpfs.
    """
    with tempfile.TemporaryFile() as file:
        for _ in range(planted["disk_mb"] * 3):
            file.write(bytes(_MIB))
        file.flush()
        return file.tell()


def many_files(planted):
    """Fills its private folder with many files, each within the limit of one.

    Stopped by: the size of its tmpfs; without a view the host, which looks.
    """
    folder = tempfile.mkdtemp()
    for number in range(12):
        with open(os.path.join(folder, str(number)), "wb") as file:
            for _ in range(planted["disk_mb"] // 2):
                file.write(bytes(_MIB))
        time.sleep(0.06)
    return "filled"


def fill_the_workspace(planted):
    """Fills the folder that it was granted.

    Stopped by: the host, which looks.
    """
    for number in range(12):
        with open(os.path.join(planted["workspace"], str(number)), "wb") as file:
            for _ in range(planted["disk_mb"] // 2):
                file.write(bytes(_MIB))
        time.sleep(0.06)
    return "filled"


def reserve_space(planted):
    """Reserves room on the disk without writing.

    Stopped by: RLIMIT_FSIZE; the size of its tmpfs.
    """
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, planted["disk_mb"] * 4 * _MIB)
        return os.fstat(file.fileno()).st_size


def many_descriptors(planted):
    """Opens files until nobody can any more.

    Stopped by: RLIMIT_NOFILE.
    """
    return len([os.open("/dev/null", os.O_RDONLY) for _ in range(900)])


def print_without_end(planted):
    """Prints 64 MiB.

    Stopped by: the cap on what is kept of a call's output.
    """
    for _ in range(64):
        print("x" * _MIB)


def write_past_the_capture(planted):
    """Writes to its standard output by number, as C code does, without end.

    Stopped by: the cap on raw output.
    """
    for _ in range(400):
        os.write(1, b"x" * _MIB)
    return "written"


def end_at_once(planted):
    """Ends the process in the middle of a call.

    Stopped by: the supervisor, which tells its caller.
    """
    os._exit(0)


def leave_by_exception(planted):
    """Raises SystemExit.

    Stopped by: the worker, to which that is an error.
    """
    sys.exit(0)


def crash(planted):
    """Reads address 0.

    Stopped by: the process of its own.
    """
    ctypes.string_at(0)


def abort(planted):
    """Calls abort.

    Stopped by: the process of its own.
    """
    os.abort()


def use_up_the_stack(planted):
    """Recurses until the stack of C is used up.

    Stopped by: the process of its own.
    """
    sys.setrecursionlimit(10**9)

    class Deep:
        def __repr__(self):
            return repr(self)

    repr(Deep())


def leave_a_thread(planted):
    """Answers, and leaves a thread that writes where it should not.

    Stopped by: what confines the whole process.
    """

    def later():
        time.sleep(0.02)
        with open(os.path.join(planted["outside"], "left"), "w") as file:
            file.write("later")

    threading.Thread(target=later, daemon=True).start()


def deep_folders(planted):
    """Leaves folders in folders, too deep for whoever removes them by recursion or by path.

    Stopped by: the host, which removes them step by step.
    """
    os.chdir(tempfile.gettempdir())
    for _ in range(3000):
        os.mkdir("d" * 20)
        os.chdir("d" * 20)


def closed_folder(planted):
    """Hides what it writes in a folder that nobody may list.

    Stopped by: the size of its tmpfs; the host, to which that is as bad as too much.
    """
    place = os.path.join(planted["workspace"], "closed")
    os.mkdir(place, 0o300)
    for number in range(12):
        with open(os.path.join(place, str(number)), "wb") as file:
            for _ in range(planted["disk_mb"] // 2):
                file.write(bytes(_MIB))
        time.sleep(0.06)
    return "filled"


def _sixty_files():
    """Not one: for each lock the kernel looks through all those of a file."""
    return [os.open(f"{tempfile.gettempdir()}/{one}", os.O_CREAT | os.O_RDWR) for one in range(60)]


def locks_without_end(planted):
    """Locks every other byte of a file of its own: two hundred bytes of the kernel's memory each, as many as it likes.

    Stopped by: the host, which looks into /proc/locks; cgroup memory.max.
    """
    until = time.monotonic() + 0.7 * planted["seconds"]
    number = 0
    files = [
        os.open(f"{tempfile.gettempdir()}/{one}", os.O_CREAT | os.O_RDWR) for one in range(60)
    ]  # the kernel looks through all locks of a file
    while time.monotonic() < until:
        fcntl.lockf(files[number % 60], fcntl.LOCK_EX, 1, 2 * number)
        number += 1
    time.sleep(0.2 * planted["seconds"])
    return number if number > 5_000 else None


def locks_of_an_open_file(planted):
    """The same with locks that belong to the open file, so that nobody sees whose they are.

    Stopped by: seccomp (F_OFD_SETLK).
    """
    until = time.monotonic() + 0.7 * planted["seconds"]
    number = 0
    files = _sixty_files()
    while time.monotonic() < until:
        wanted = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 2 * number, 1, 0)
        fcntl.fcntl(files[number % 60], 37, wanted)
        number += 1
    time.sleep(0.2 * planted["seconds"])
    return number if number > 5_000 else None


def timers_without_end(planted):
    """Makes timers, each with a signal in reserve in the kernel.

    Stopped by: RLIMIT_SIGPENDING.
    """
    made = ctypes.c_int()
    for _ in range(5000):
        try:
            syscall("timer_create", 1, None, ctypes.byref(made))
        except OSError:
            return None
    return "made"


def large_pipes(planted):
    """Has the kernel keep a mebibyte for each of many pipes.

    Stopped by: seccomp (F_SETPIPE_SZ).
    """
    kept = 0
    for _ in range(40):
        _, write = os.pipe()
        fcntl.fcntl(write, 1031, 1 << 20)
        os.set_blocking(write, False)
        kept += os.write(write, bytes(1 << 20))
    return kept


def many_empty_files(planted):
    """Makes files without contents in its private folder: no bytes, but each takes a kibibyte of the kernel's memory.

    Stopped by: the number of inodes of its tmpfs; without a view the host, which looks.
    """
    folder = tempfile.mkdtemp()
    until = time.monotonic() + 0.8 * planted["seconds"]
    for number in range(6_000):
        os.close(os.open(os.path.join(folder, str(number)), os.O_CREAT | os.O_WRONLY))
        if time.monotonic() > until:
            return None
    time.sleep(0.15)
    return number
