"""Files of the host: reading, changing, and leading others to them."""

import ctypes
import mmap
import os
import socket
import stat

from .raw import syscall, text


def _content(path):
    with open(path) as file:
        return file.read()


def read_a_file(planted):
    """Reads a file that every user of the host can read.

    Stopped by: mount namespace; Landlock.
    """
    return _content(planted["secret"])


def read_through_a_symbolic_link(planted):
    """Lays a link into its own folder and reads through it.

    Stopped by: mount namespace; Landlock.
    """
    link = os.path.join(planted["workspace"], "link")
    os.symlink(planted["secret"], link)
    try:
        return _content(link)
    finally:
        os.unlink(link)


def read_through_a_hard_link(planted):
    """Gives the file a second name in its own folder.

    Stopped by: mount namespace; Landlock (REFER).
    """
    link = os.path.join(planted["workspace"], "hard")
    os.link(planted["secret"], link)
    try:
        return _content(link)
    finally:
        os.unlink(link)


def read_upwards(planted):
    """Climbs out of its folder.

    Stopped by: mount namespace; Landlock.
    """
    return _content(os.path.join(planted["workspace"], "..", os.path.basename(planted["secret"])))


def read_through_proc(planted):
    """Takes the way through /proc/self/root and /proc/self/cwd.

    Stopped by: mount namespace (no /proc); Landlock.
    """
    return _content("/proc/self/root" + planted["secret"])


def read_the_password_file(planted):
    """Reads the list of the host's users.

    Stopped by: mount namespace; Landlock.
    """
    return _content("/etc/passwd")[:40]


def list_a_folder(planted):
    """Lists a folder of the host.

    Stopped by: mount namespace; Landlock.
    """
    return os.listdir(planted["outside"])


def list_processes(planted):
    """Reads the command lines of the host's processes.

    Stopped by: mount namespace (no /proc); Landlock.
    """
    found = [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (os.getpid(), 1, 2)]
    return [_content(f"/proc/{name}/cmdline") for name in found[:3]]


def see_that_a_file_exists(planted):
    """Asks for a file's size without opening it.

    Stopped by: mount namespace.
    Not stopped: reduced.
    """
    return os.stat(planted["secret"]).st_size


def read_by_handle(planted):
    """Opens a file by its handle, past every path. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    handle = (ctypes.c_uint32 * 40)(128)
    mount = ctypes.c_int()
    syscall("name_to_handle_at", -100, text(planted["secret"]), handle, ctypes.byref(mount), 0)
    base = os.open("/", os.O_RDONLY)
    fd = syscall("open_by_handle_at", base, handle, os.O_RDONLY)
    return os.read(fd, 100).decode()


def map_a_file(planted):
    """Maps a host file instead of reading it.

    Stopped by: mount namespace; Landlock.
    """
    with open(planted["secret"], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        return bytes(view).decode()


def write_a_new_file(planted):
    """Leaves a file where everybody may write.

    Stopped by: mount namespace; Landlock.
    """
    with open(os.path.join(planted["outside"], "left"), "w") as file:
        return file.write("here I was")


def change_a_file(planted):
    """Writes into a file that everybody may write to.

    Stopped by: mount namespace; Landlock.
    """
    with open(os.path.join(planted["outside"], "open"), "a") as file:
        return file.write("changed")


def truncate_by_path(planted):
    """Empties a file without opening it.

    Stopped by: mount namespace; Landlock (TRUNCATE), below ABI 3 seccomp.
    """
    os.truncate(os.path.join(planted["outside"], "open"), 0)
    return "emptied"


def change_modes(planted):
    """Changes a file's mode, which Landlock does not look at.

    Stopped by: mount namespace; seccomp; another user.
    """
    path = os.path.join(planted["outside"], "open")
    before = os.stat(path).st_mode
    os.chmod(path, 0o600 if before & 0o077 else 0o666)
    return "changed" if os.stat(path).st_mode != before else None


def change_times(planted):
    """Changes a file's times.

    Stopped by: mount namespace; seccomp; another user.
    """
    path = os.path.join(planted["outside"], "open")
    os.utime(path, (1, 1))
    return "changed" if os.stat(path).st_mtime == 1 else None


def change_attributes(planted):
    """Hangs an extended attribute on a file of the host.

    Stopped by: seccomp; mount namespace.
    """
    os.setxattr(os.path.join(planted["outside"], "open"), b"user.mark", b"mine")
    return "marked"


def remove_a_file(planted):
    """Removes a file of the host.

    Stopped by: mount namespace; Landlock.
    """
    os.unlink(os.path.join(planted["outside"], "open"))
    return "removed"


def move_a_file(planted):
    """Moves a file of the host into its own folder.

    Stopped by: mount namespace; Landlock (REFER).
    """
    os.rename(os.path.join(planted["outside"], "open"), os.path.join(planted["workspace"], "mine"))
    return "moved"


def change_its_own_code(planted):
    """Rewrites its own plugin, so that the next start runs something else.

    Stopped by: read-only mount; Landlock.
    """
    with open(__file__, "a") as file:
        return file.write("\n# changed\n")


def set_user_id_file(planted):
    """Leaves a program with the set-user-id bit in a folder that it may write to.

    Stopped by: seccomp (modes with such bits).
    """
    path = os.path.join(planted["workspace"], "trap")
    with open(path, "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod(path, 0o4755)
    return "left" if os.stat(path).st_mode & stat.S_ISUID else None


def set_user_id_at_birth(planted):
    """Creates a program with the set-user-id bit at once.

    Stopped by: seccomp (modes with such bits).
    """
    fd = os.open(os.path.join(planted["workspace"], "born"), os.O_CREAT | os.O_WRONLY, 0o6755)
    return "left" if os.fstat(fd).st_mode & stat.S_ISUID else None


def pipe_as_a_trap(planted):
    """Leaves a named pipe as its result: who opens it hangs.

    Stopped by: seccomp; Landlock.
    """
    os.mkfifo(os.path.join(planted["workspace"], "result.txt"))
    return "left"


def device_node(planted):
    """Makes itself a device that is the host's memory. Needs root.

    Stopped by: seccomp; Landlock; no capabilities.
    """
    os.mknod(os.path.join(planted["workspace"], "memory"), stat.S_IFCHR | 0o666, os.makedev(1, 1))
    return "made"


def socket_file(planted):
    """Leaves a socket in its folder.

    Stopped by: seccomp; Landlock.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.join(planted["workspace"], "s"))
    return "left"


def run_what_it_wrote(planted):
    """Writes a program and runs it.

    Stopped by: seccomp; Landlock (EXECUTE); noexec.
    """
    path = os.path.join(planted["workspace"], "program")
    with open(path, "w") as file:
        file.write("#!/bin/sh\nexit 0\n")
    os.chmod(path, 0o755)
    return os.spawnv(os.P_WAIT, path, [path]) == 0 or None


def leave_by_chroot(planted):
    """Climbs out of its root with chroot. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    os.mkdir(os.path.join(planted["workspace"], "cell"))
    os.chroot(os.path.join(planted["workspace"], "cell"))
    for _ in range(40):
        os.chdir("..")
    os.chroot(".")
    return _content(planted["secret"])


def result_that_leads_elsewhere(planted):
    """Leaves links as its results: to a file of the host, to a folder of it, and over both.

    Stopped by: the host, which opens results beneath the workspace and follows no link.
    """
    os.symlink(planted["secret"], os.path.join(planted["workspace"], "result.txt"))
    os.symlink(os.path.dirname(planted["secret"]), os.path.join(planted["workspace"], "results"))
    relative = os.path.join("..", os.path.basename(planted["secret"]))
    os.symlink(relative, os.path.join(planted["workspace"], "relative.txt"))
