"""A keeper and its worker: forked, brought into namespaces of their own, and then told what they are for.

Until its orders come a crew is nobody's, so that the zygote can have one at hand (`Zygote` says when). Its worker then
has copied and filled the pages that it will need, which is most of what a start costs; not one step of the confinement
is taken before the plan is known, and none is left out.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from eventcore.plugins.sandbox.confine import Plan, StepFailed, build, confine, die_with, leave
from eventcore.plugins.sandbox.linux import calls
from eventcore.plugins.sandbox.worker.main import serve_channel
from eventcore.plugins.sandbox.zygote.rehearsal import rehearse

MOST_REQUEST = 256 * 1024
#: The exit code of a process that could not be confined.
CONFINEMENT_FAILED = 97
_CHANNEL, _STATUS = 3, 4
#: Descriptors from here on are in nobody's way when those of the worker are put into their places.
_SAFE = 64
_DONE = b"."
#: What `ps` shows of a crew without orders.
SPARE = "spare"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a crew is, whatever its orders.

    Attributes:
        namespaces: whether it has namespaces of its own.
        network: whether it stays in the host's network.
        spare: whether it has time to rehearse.
        folder: what views are built upon, and where it may rehearse.
    """

    namespaces: bool
    network: bool
    spare: bool
    folder: str


class Crew:
    """One, seen from the zygote.

    Attributes:
        kind: what it was made for.
        ready: whether it has said that it waits for its orders.
    """

    def __init__(self, kind: Kind, pid: int, sock: socket.socket) -> None:
        self.kind, self.ready = kind, False
        self._sock, self._pid, self._pidfd = sock, pid, os.pidfd_open(pid)

    def fileno(self) -> int:
        """Readable when it is ready, and when it is gone."""
        return self._sock.fileno()

    def hear(self) -> bool:
        """Whether it is still there."""
        try:
            self.ready = bool(self._sock.recv(1))
        except OSError:
            self.ready = False
        return self.ready

    def order(self, plan: bytes, fds: Sequence[int], status: socket.socket) -> None:
        """Tell it what it is for; `fds` are those of channel, output and status.

        Raises:
            OSError: it is gone.
        """
        # The host first: who kills a worker that has just begun is to have the keeper in hand.
        tell(status, {"keeper": self._pid}, (self._pidfd,))
        socket.send_fds(self._sock, [plan], fds)

    def leave(self) -> None:
        """Close what we have of it. One without orders ends then."""
        self._sock.close()
        os.close(self._pidfd)


def tell(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """A message to the host, which may have given up on us."""
    with suppress(OSError):
        socket.send_fds(sock, [json.dumps(message).encode()], fds)


# The keeper


def keep(kind: Kind, parent: int, sock: socket.socket) -> NoReturn:
    """Bring up a worker, wait for the orders, build the view, and say how the worker ended."""
    code, status = CONFINEMENT_FAILED, None
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with(parent)
        _hush()
        calls.set_name(SPARE if kind.spare else "keeper")
        problem, worker, pair = _prepared(kind, sock)
        plan, data, fds = _orders(sock)
        status = socket.socket(fileno=fds[2])
        calls.set_name("keeper")
        if problem is not None:
            raise problem
        socket.send_fds(pair, [data], fds)
        build(plan, kind.folder)
        # With our root, which is the view: that of our namespace is another one where the host lives in a chroot.
        socket.send_fds(pair, [_DONE], [os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)])
        tell(status, {"worker": worker}, (os.pidfd_open(worker),))
        code = _await(worker, status)
    except StepFailed as error:
        if status is not None:
            tell(status, {"failed": list(error.args)})
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not run the zygote's code
        if status is not None:
            tell(status, {"failed": ["keeper", getattr(error, "errno", 0), repr(error)]})
    finally:
        os._exit(code)


def _hush() -> None:
    """Our standard error is the host's, and who waits for its end is not to wait for us."""
    null = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)


def _prepared(kind: Kind, sock: socket.socket) -> tuple[StepFailed | None, int, socket.socket]:
    """Our worker and our line to it. What went wrong is told when there is somebody to tell it to."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        leave(namespaces=kind.namespaces, network=kind.network)
    except StepFailed as error:
        return error, 0, ours
    # Before the fork: in the worker this would be a race with the view, in which there is no /proc.
    inside = _Inside(kind, os.getpid(), os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC), _address_space())
    worker = os.fork()
    if worker == 0:
        sock.close()
        ours.close()
        _work(inside, theirs)
    os.close(inside.root)
    theirs.close()
    if kind.spare:
        if not ours.recv(1):
            os._exit(CONFINEMENT_FAILED)  # the worker is gone; the zygote sees that we are
        sock.send(_DONE)
    return None, worker, ours


def _orders(sock: socket.socket) -> tuple[Plan, bytes, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, MOST_REQUEST, 3)
    if not data:
        os._exit(0)  # nobody needs us any more
    return Plan.of(json.loads(data)), data, fds


def _await(worker: int, status: socket.socket) -> int:
    """Wait for the worker's end, and say how it was. Returns our own exit code."""
    os.dup2(status.fileno(), 3)
    calls.close_from(4)
    while True:
        pid, how = os.waitpid(-1, 0)
        if pid == worker:
            with suppress(OSError):
                os.write(3, json.dumps({"exited": os.waitstatus_to_exitcode(how)}).encode())
            return 0


# The worker


@dataclass(slots=True)
class _Inside:
    """What a worker is told by its keeper.

    Attributes:
        keeper: the keeper's pid.
        root: a descriptor of their mount namespace.
        memory: the process's address space, in bytes.
    """

    kind: Kind
    keeper: int
    root: int
    memory: int


def _work(inside: _Inside, line: socket.socket) -> NoReturn:
    code = CONFINEMENT_FAILED
    try:
        die_with(inside.keeper)  # once more when it has become another user, which undoes it
        line = socket.socket(fileno=fcntl.fcntl(line.detach(), fcntl.F_DUPFD_CLOEXEC, _SAFE))
        inside.root = fcntl.fcntl(inside.root, fcntl.F_DUPFD_CLOEXEC, _SAFE)
        if inside.kind.spare:
            rehearse(inside.kind.folder)
            gc.collect()
            inside.memory = _address_space()
            line.send(_DONE)
        plan, _, fds = _orders(line)
        calls.set_name("worker")
        _arrange(*fds)
        done, view, _, _ = socket.recv_fds(line, 1, 1)
        if not done:
            os._exit(code)  # the keeper has said why
        try:
            if plan.namespaces:
                _enter(inside.root, *view)
            confine(plan, inside.memory, inside.keeper)
        except StepFailed as error:
            os.write(_STATUS, json.dumps({"failed": list(error.args)}).encode())
            os._exit(code)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be told
            said = ["worker", getattr(error, "errno", 0), repr(error)]
            os.write(_STATUS, json.dumps({"failed": said}).encode())
            os._exit(code)
        os.write(_STATUS, b'{"ready": true}')
        os.close(_STATUS)
        if plan.command:
            _become_program(plan)
        sys.argv[:] = ["worker", str(_CHANNEL)]
        serve_channel(_CHANNEL)
        code = 0
    finally:
        os._exit(code)


def _enter(namespace: int, view: int) -> None:
    """Go to where the keeper is. pivot_root takes along whoever stood at the old root; this asks nothing."""
    calls.setns(namespace, calls.CLONE_NEWNS)
    os.fchdir(view)
    os.chroot(".")


def _address_space() -> int:
    # Bytes: a codec that nothing else here uses would be imported by each worker anew.
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _become_program(plan: Plan) -> NoReturn:
    """Run a program in our place: the channel is its standard input and output. The codes of failure are a shell's."""
    for standard in (0, 1):
        os.dup2(_CHANNEL, standard)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and a program would inherit that
    env = {**os.environ, **dict(one.split("=", 1) for one in plan.env)}
    try:
        os.execve(plan.command[0], list(plan.command), env)  # noqa: S606 - no shell is what is wanted
    except OSError as error:
        os.write(2, f"{plan.command[0]}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _arrange(channel: int, output: int, status: int) -> None:
    """Standard input is empty, 1 and 2 are the output, 3 the channel, 4 the status; the rest is about to be closed."""
    null = os.open("/dev/null", os.O_RDONLY)
    # Copies beyond the places that are about to be overwritten.
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SAFE) for fd in (null, output, output, channel, status)]
    for place, fd in enumerate(safe):
        os.dup2(fd, place, inheritable=place < _CHANNEL)
