"""Opening the control socket's file: private from the first moment, and short enough for a socket address."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from eventcore.kernel.errors import HomeError

#: Longest path used as it is, in bytes. The limit is 107 on Linux and 103 on macOS (unix(7), sun_path).
MAX_PATH = 100

_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Bound:
    """A listening socket, its file, and the file's identity.

    Attributes:
        folder: the folder made just for it, which is removed with it; None for the home's own.
    """

    socket: socket.socket
    path: Path
    identity: tuple[int, int]
    folder: Path | None = None


def bind(path: Path, *, replace: bool) -> Bound:
    """Listen at `path`, or at a short path in its place if it is too long.

    Args:
        replace: remove a socket file that is there. Only for who owns the home: it may belong to a living engine.

    Raises:
        HomeError: it cannot be opened.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise HomeError("this system has no unix sockets; the engine runs without a control socket")
    try:
        path, folder = (path, None) if _fits(path) else _short(path)
        if folder is None:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _check_closed(path.parent)
        if replace:
            _remove_socket(path)
        return _listen(path, folder)
    except OSError as error:
        hint = "another engine may be using it" if path.exists() else None
        raise HomeError(f"cannot open the control socket {path}: {error.strerror or error}", hint=hint) from error


def remove(bound: Bound) -> None:
    """Remove the socket's file, if it is still this one, and a folder made for it."""
    with contextlib.suppress(OSError):
        if _identity(bound.path) == bound.identity:
            bound.path.unlink()
    if bound.folder is not None:
        # It stays if another home's socket is in it.
        with contextlib.suppress(OSError):
            bound.folder.rmdir()


def _listen(path: Path, folder: Path | None) -> Bound:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.bind(str(path))
        # Nobody can connect before `listen`, so there is no moment at which the file is open to others.
        path.chmod(0o600)
        listening.listen(_BACKLOG)
        return Bound(listening, path, _identity(path), folder)
    except BaseException:
        listening.close()
        raise


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_PATH


def _short(path: Path) -> tuple[Path, Path]:
    """A short path that stands for `path`, the same each time while nobody interferes, and its private folder."""
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16] + ".sock"
    for base in filter(None, (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir())):
        for folder in (Path(base) / f"eventcore-{os.geteuid()}", None):
            if not _fits(Path(base) / "eventcore-0000000000" / name):
                continue
            with contextlib.suppress(OSError):
                # Somebody may have put something of that name into a shared folder; then a random name serves.
                folder = folder or Path(tempfile.mkdtemp(prefix="eventcore-", dir=base))
                folder.mkdir(mode=0o700, exist_ok=True)
                _check_private(folder)
                return folder / name, folder
    raise HomeError(
        f"the path of the control socket is too long ({path})", hint="set TMPDIR to a short path, or move the home"
    )


def _check_private(folder: Path) -> None:
    info = folder.lstat()
    is_ours = stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()
    if not is_ours or stat.S_IMODE(info.st_mode) & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user")


def _check_closed(folder: Path) -> None:
    # Not narrowed here: a folder such as /tmp must not be closed to all others by mistake.
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        raise HomeError(f"{folder} is open to other users (mode {mode:04o})", hint=f"chmod 700 {folder}")


def _remove_socket(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise HomeError(f"{path} is not a socket", hint="move it away")
    except FileNotFoundError:
        return
    path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    info = path.lstat()
    return info.st_dev, info.st_ino
