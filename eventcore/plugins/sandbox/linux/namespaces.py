"""Namespaces, and the view of the file system that a worker lives in."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from eventcore.plugins.sandbox.linux import calls, idmap

#: Where the worker's private folder is, in its view.
SCRATCH = "/scratch"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_OTHERS = calls.CLONE_NEWNS | calls.CLONE_NEWIPC | calls.CLONE_NEWUTS | calls.CLONE_NEWCGROUP


def enter_user() -> None:
    """A user namespace in which we are who we were, with all capabilities over what we make from now on.

    Raises:
        OSError: it is not allowed here.
    """
    uid, gid = os.geteuid(), os.getegid()
    calls.unshare(calls.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def leave_host(*, network: bool) -> None:
    """Mount, IPC, host name and cgroup namespaces of our own, and an empty network unless it is to be shared."""
    calls.unshare(_OTHERS | (0 if network else calls.CLONE_NEWNET))


def build_view(
    root: str,
    read: Iterable[str],
    write: Collection[str],
    own: Iterable[str],
    size: int,
    uid: int | None,
    fixed: Collection[str] = (),
) -> None:
    """Change to a root that holds these paths, a few devices and a private folder, and nothing else.

    Args:
        root: an existing folder outside of those; it is hidden from us alone.
        read, write: absolute paths, which keep their place.
        own: those of `read` whose owner is to appear as `uid`, as the owners of `write` do.
        size: the most that the private folder may hold, in bytes.
        uid: the user that will live here, if that is not who we are.
        fixed: those of `read` and `write` that have no link in their paths. Who may change one of them may put a link
            in the place of another: such a one is refused.

    Raises:
        OSError: a mount is refused.
    """
    calls.mount(None, "/", None, calls.MS_REC | calls.MS_PRIVATE)
    calls.mount("view", root, "tmpfs", calls.MS_NOSUID | calls.MS_NODEV, "size=1m,mode=0755")
    special = sorted({*write, *own, *fixed})  # what lies in another one comes after it, or it would be hidden
    for path in _outermost([path for path in read if path not in special]):
        _bind(path, root + path)
    for device in DEVICES:
        _bind(device, root + device)
    os.mkdir(root + SCRATCH)
    for path in special:
        _place(path, root + path)
    _link_usual(root)
    calls.mount_setattr(root, calls.MOUNT_ATTR_RDONLY | calls.MOUNT_ATTR_NOSUID)
    user, group = (os.geteuid(), os.getegid()) if uid is None else (uid, uid)
    # An inode takes a kibibyte of the kernel's memory besides.
    options = f"size={size},nr_inodes={max(1024, min(size >> 12, 65536))},mode=0700,uid={user},gid={group}"
    calls.mount("scratch", root + SCRATCH, "tmpfs", calls.MS_NOSUID | calls.MS_NODEV | calls.MS_NOEXEC, options)
    for path in special:
        rights = calls.MOUNT_ATTR_NOSUID | calls.MOUNT_ATTR_NODEV
        # What it may change it may not run, also not by handing it to the dynamic loader.
        rights |= calls.MOUNT_ATTR_NOEXEC if path in write else calls.MOUNT_ATTR_RDONLY
        _attach(path, root, uid, rights, fixed=path in fixed)
    os.chdir(root)
    calls.pivot_root(".", ".")
    calls.umount(".", calls.MNT_DETACH)
    os.chdir("/")


def _link_usual(root: str) -> None:
    """Names by which code knows what is in the view under another one."""
    names = {"/tmp": SCRATCH}  # noqa: S108 - for code that writes there without asking
    names |= {name: os.readlink(name) for name in ("/bin", "/sbin") if os.path.islink(name)}
    for name, target in names.items():
        if not os.path.lexists(root + name) and os.path.isdir(root + os.path.join("/", target)):
            os.symlink(target, root + name)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie in another one."""
    kept: list[str] = []
    for path in sorted(dict.fromkeys(paths)):
        if not kept or not path.startswith(kept[-1].rstrip("/") + "/"):
            kept.append(path)
    return kept


def _attach(path: str, root: str, uid: int | None, rights: int, *, fixed: bool) -> None:
    """Bind a path to its place in the view. Each end is opened once, so nothing can be put in between."""
    opened: list[int] = []

    def kept(fd: int) -> int:
        opened.append(fd)
        return fd

    plain = os.O_PATH | os.O_CLOEXEC
    try:
        tree = kept(calls.open_tree(kept(calls.open_fixed(path) if fixed else os.open(path, plain))))
        if uid is not None:
            with suppress(OSError):  # a file system that cannot: the modes of its files decide
                idmap.appear_as(tree, uid)
        calls.mount_setattr_of(tree, rights)
        base = kept(os.open(root, plain))
        place = calls.open_fixed(path.lstrip("/"), base) if fixed else os.open(root + path, plain)
        calls.move_mount(tree, kept(place))
    finally:
        for fd in opened:
            os.close(fd)


def _place(source: str, target: str) -> None:
    """Make what can be mounted upon."""
    if os.path.isdir(source):
        _make(target)
    else:
        _make(os.path.dirname(target))
        os.close(os.open(target, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o444))


def _make(folder: str) -> None:
    """As `os.makedirs`, which looks at each folder above before it makes one."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make(os.path.dirname(folder))
        os.mkdir(folder)


def _bind(source: str, target: str) -> None:
    if not os.path.exists(source):
        return
    if os.path.islink(source) and os.path.isdir(source):  # such as /lib on systems where it is /usr/lib
        link = os.readlink(source)
        if not os.path.isabs(link):
            _make(os.path.dirname(target))
            os.symlink(link, target)
            return
    if not os.path.lexists(target):
        _place(source, target)
    calls.mount(source, target, None, calls.MS_BIND | calls.MS_REC)
