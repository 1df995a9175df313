"""The zygote: a clean, single-threaded process that has a worker's modules in memory and forks at a word of its host.

    host --exec--> anchor --fork--> zygote --fork--> keeper --fork--> worker

The zygote is the first process of a pid namespace, and so is each keeper: the kernel kills all of such a namespace with
its first process, so no worker outlives its host and nothing outlives its worker. Where namespaces are not to be had,
anchor and zygote are one, and what ties them is each one's parent-death signal. A keeper builds the view, starts the
worker, reaps what is orphaned beneath it, and says how the worker ended.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
from contextlib import suppress
from typing import NoReturn

from eventcore.plugins.sandbox.confine import INNER_PID, Plan, die_with, filter_of
from eventcore.plugins.sandbox.linux import calls, idmap, namespaces
from eventcore.plugins.sandbox.probe import probe
from eventcore.plugins.sandbox.zygote.crew import CONFINEMENT_FAILED, MOST_REQUEST, Crew, Kind, keep, tell
from eventcore.plugins.sandbox.zygote.rehearsal import rehearse

#: After so long without a request the next worker is forked ahead: not in the way of those that are starting.
#: Milliseconds.
_QUIET = 10


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
        tell(sock, {"failed": ["namespaces", error.errno, str(error)]})
        os._exit(CONFINEMENT_FAILED)
    calls.prctl(calls.PR_SET_CHILD_SUBREAPER, 1)
    rehearse(folder)
    gc.collect()
    gc.freeze()
    tell(sock, {"up": True, "namespaces": inside, "means": found})
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


class Zygote:
    """Serves requests: a plan as JSON, with the descriptors of channel, output and status.

    It has one crew to spare, forked when nothing else is to do. A plan that this one does not fit, or that comes before
    it is ready, gets one of its own.
    """

    def __init__(self, sock: socket.socket, folder: str, own_namespaces: bool) -> None:
        self._sock, self._folder = sock, folder
        self._home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC) if own_namespaces else -1
        self._spare: Crew | None = None
        self._woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._poll = select.poll()
        for one in (self._sock.fileno(), self._woken):
            self._poll.register(one, select.POLLIN)

    def run(self) -> NoReturn:
        """Serve until the host is gone."""
        tried = True  # until somebody has asked for a worker there is nothing to get ahead of
        while True:
            ready = {fd for fd, _ in self._poll.poll(None if tried or self._spare is not None else _QUIET)}
            if not ready:
                tried = True
                self._get_ahead()
            if self._spare is not None and self._spare.fileno() in ready and not self._spare.hear():
                self._take_spare().leave()
            if self._woken in ready:
                os.read(self._woken, 4096)
                _reap()
            if self._sock.fileno() in ready:
                tried = False
                self._request()

    def _request(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._sock, MOST_REQUEST, 3)
        if not data:
            os._exit(0)
        try:
            plan = Plan.of(json.loads(data))
            with socket.socket(fileno=os.dup(fds[2])) as status:
                self._start(plan, data, fds, status)
        finally:
            for fd in fds:
                os.close(fd)

    def _start(self, plan: Plan, data: bytes, fds: list[int], status: socket.socket) -> None:
        # One to spare has left the host's network.
        spare = self._take_spare() if self._spare is not None and self._spare.ready and not plan.ports else None
        if spare is not None and self._ordered(spare, data, fds, status):
            _remember(plan)
            return
        try:
            _remember(plan)
            crew = self._fork(Kind(self._home >= 0, bool(plan.ports), False, self._folder))
        except OSError as error:
            tell(status, {"failed": ["namespaces", error.errno, str(error)]})
            return
        self._ordered(crew, data, fds, status)

    def _ordered(self, crew: Crew, data: bytes, fds: list[int], status: socket.socket) -> bool:
        """Hand a crew its orders. False where it is gone."""
        try:
            crew.order(data, fds, status)
        except OSError:
            return False
        finally:
            crew.leave()
        return True

    def _get_ahead(self) -> None:
        with suppress(OSError):  # whoever comes next has one forked, and is told what is wrong
            self._spare = self._fork(Kind(self._home >= 0, False, True, self._folder))
            self._poll.register(self._spare.fileno(), select.POLLIN)

    def _take_spare(self) -> Crew:
        spare, self._spare = self._spare, None
        assert spare is not None
        self._poll.unregister(spare.fileno())
        return spare

    def _fork(self, kind: Kind) -> Crew:
        if kind.namespaces:
            calls.unshare(calls.CLONE_NEWPID)
        zygote = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = os.fork()
            if pid == 0:
                # From within a pid namespace a parent outside of it has the number 0.
                keep(kind, 0 if kind.namespaces else zygote, theirs)
        if kind.namespaces:
            calls.setns(self._home, calls.CLONE_NEWPID)  # or the next unshare is refused
        return Crew(kind, pid, ours)


def _remember(plan: Plan) -> None:
    """Have ready, for all that are forked from now on, what a worker of this kind would have to make for itself."""
    if plan.namespaces:
        filter_of(plan, INNER_PID)
        idmap.remember((*plan.write, *plan.own), plan.uid)


def _reap() -> None:
    """Keepers, and what was orphaned where there is no pid namespace to die with its keeper."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
