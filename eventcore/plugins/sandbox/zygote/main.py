"""The zygote: a clean, single-threaded process that has a worker's modules in memory and forks at a word of its host.

    host --exec--> anchor --fork--> zygote --fork--> keeper --fork--> worker

The zygote is the first process of a pid namespace, and so is each keeper: the kernel kills all of such a namespace with
its first process, so no worker outlives its host and nothing outlives its worker. Where namespaces are not to be had,
anchor and zygote are one, and what ties them is each one's parent-death signal. A keeper builds the view, starts the
worker, reaps what is orphaned beneath it, and says how the worker ended.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

from eventcore.plugins.sandbox.confine import INNER_PID, Plan, StepFailed, confine, die_with, filter_of, prepare
from eventcore.plugins.sandbox.linux import calls, idmap, namespaces
from eventcore.plugins.sandbox.probe import probe
from eventcore.plugins.sandbox.worker.main import serve_channel
from eventcore.plugins.sandbox.zygote.rehearsal import rehearse

_MOST_REQUEST = 256 * 1024
#: The exit code of a process that could not be confined.
CONFINEMENT_FAILED = 97
_CHANNEL, _STATUS = 3, 4


def serve(control: int, host: int, folder: str, reduced: str) -> NoReturn:
    """Fork a worker for each request on `control`, until its other end is closed.

    Args:
        host: the pid of the process that started us; if it is gone already, so are we.
        folder: a private folder, which views are built upon.
        reduced: `always` leaves namespaces alone; otherwise they are used if all of them work.
    """
    die_with(host)
    os.set_inheritable(control, False)
    sock = socket.socket(fileno=control)
    try:
        found = probe(folder)
        inside = reduced != "always" and all(row["works"] for row in found if row["needed"] == "full")
        if inside:
            _step_inside()
    except OSError as error:
        _tell(sock, {"failed": ["namespaces", error.errno, str(error)]})
        os._exit(CONFINEMENT_FAILED)
    calls.prctl(calls.PR_SET_CHILD_SUBREAPER, 1)
    rehearse(folder)
    gc.collect()
    gc.freeze()
    _tell(sock, {"up": True, "namespaces": inside, "means": found})
    Zygote(sock, folder, inside).run()


def _step_inside() -> None:
    """Go on as the first process of a pid namespace; who we were waits for it, and dies with the host."""
    if os.geteuid() != 0:
        namespaces.enter_user()
        calls.prctl(calls.PR_SET_PDEATHSIG, signal.SIGKILL)
    calls.unshare(calls.CLONE_NEWPID)
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(read)
        os.closerange(3, write)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    calls.prctl(calls.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.close(write)
    if select.select([read], [], [], 0)[0]:  # the anchor ended before the signal was armed
        os._exit(1)
    os.close(read)


def _tell(sock: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    with suppress(OSError):  # the host may have given up on it
        socket.send_fds(sock, [json.dumps(message).encode()], fds)


class Zygote:
    """Serves requests: a plan as JSON, with the descriptors of channel, output and status."""

    def __init__(self, sock: socket.socket, folder: str, own_namespaces: bool) -> None:
        self._sock, self._folder = sock, folder
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if own_namespaces else -1
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._poll = select.poll()
        for one in (self._sock.fileno(), self._woken):
            self._poll.register(one, select.POLLIN)

    def run(self) -> NoReturn:
        """Serve until the host is gone."""
        while True:
            ready = {fd for fd, _ in self._poll.poll()}
            if self._woken in ready:
                os.read(self._woken, 4096)
                _reap()
            if self._sock.fileno() in ready:
                self._request()

    def _request(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._sock, _MOST_REQUEST, 3)
        if not data:
            os._exit(0)
        try:
            plan = Plan.of(json.loads(data))
            status = socket.socket(fileno=fds.pop())
            with status:
                self._fork(plan, fds[0], fds[1], status)
        finally:
            for fd in fds:
                os.close(fd)

    def _fork(self, plan: Plan, channel: int, output: int, status: socket.socket) -> None:
        try:
            if plan.namespaces:
                # Before the fork, so that they are there for all to come.
                filter_of(plan, INNER_PID)
                idmap.remember((*plan.write, *plan.own), plan.uid)
                calls.unshare(calls.CLONE_NEWPID)
            zygote = os.getpid()
            pid = os.fork()
        except OSError as error:
            _tell(status, {"failed": ["namespaces", error.errno, str(error)]})
            return
        if pid == 0:
            # From within a pid namespace a parent outside of it has the number 0.
            _keep(plan, 0 if plan.namespaces else zygote, self._folder, channel, output, status)
        if plan.namespaces:
            calls.setns(self._home, calls.CLONE_NEWPID)  # or the next unshare is refused
        pidfd = os.pidfd_open(pid)
        _tell(status, {"keeper": pid}, (pidfd,))
        os.close(pidfd)


def _reap() -> None:
    """Keepers, and what was orphaned where there is no pid namespace to die with its keeper."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# The keeper


def _keep(plan: Plan, parent: int, folder: str, channel: int, output: int, status: socket.socket) -> NoReturn:
    code = CONFINEMENT_FAILED
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with(parent)
        memory = _address_space()
        prepare(plan, folder)
        keeper = os.getpid()
        worker = os.fork()
        if worker == 0:
            _work(plan, memory, keeper, channel, output, status)
        _tell(status, {"worker": worker}, (os.pidfd_open(worker),))
        # Our standard error is the host's, and who waits for its end is not to wait for us.
        null = os.open("/dev/null", os.O_RDWR)
        for standard in range(3):
            os.dup2(null, standard)
        os.dup2(status.fileno(), 3)
        calls.close_from(4)
        code = _await(worker)
        with suppress(OSError):
            os.write(3, json.dumps({"exited": code}).encode())
        code = 0
    except StepFailed as error:
        _tell(status, {"failed": list(error.args)})
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not run the zygote's code
        _tell(status, {"failed": ["keeper", getattr(error, "errno", 0), repr(error)]})
    finally:
        os._exit(code)


def _address_space() -> int:
    # Bytes: a codec that nothing else here uses would be imported by each keeper anew.
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _await(worker: int) -> int:
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == worker:
            return os.waitstatus_to_exitcode(status)


# The worker


def _work(plan: Plan, memory: int, keeper: int, channel: int, output: int, status: socket.socket) -> NoReturn:
    code = CONFINEMENT_FAILED
    try:
        _arrange(channel, output, status)
        try:
            confine(plan, memory, keeper)
        except StepFailed as error:
            os.write(_STATUS, json.dumps({"failed": list(error.args)}).encode())
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


def _arrange(channel: int, output: int, status: socket.socket) -> None:
    """Standard input is empty, 1 and 2 are the output, 3 the channel, 4 the status; the rest is about to be closed."""
    null = os.open("/dev/null", os.O_RDONLY)
    # Copies beyond the places that are about to be overwritten.
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (null, output, output, channel, status.fileno())]
    for place, fd in enumerate(safe):
        os.dup2(fd, place, inheritable=place < _CHANNEL)
