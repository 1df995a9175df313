"""Puts the worker together and runs its loop."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import resource
import signal
import socket
import sys

from eventcore.plugins.sandbox.worker import output
from eventcore.plugins.sandbox.worker.channel import HostChannel
from eventcore.plugins.sandbox.worker.runtime import Runtime

_PR_SET_PDEATHSIG = 1


def serve(fd: int, host_pid: int) -> None:
    """Serve without any confinement but resource limits: for trusted code, and to compare with. See `serve_channel`."""
    _limit_process(host_pid)
    serve_channel(fd)


def serve_channel(fd: int) -> None:
    """Serve the channel on `fd` until the host closes it. Does not return: the process ends.

    One thread, one loop. Async handlers run side by side; a plain function runs in the loop's own thread, so one at a
    time, and whatever comes meanwhile waits. Where all functions are plain, the loop rests: a call is waited for in
    the thread itself, as long as neither a task nor another thread could need the loop.
    """
    os.set_inheritable(fd, False)
    faulthandler.enable(file=2)
    output.install()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    channel = HostChannel(socket.socket(fileno=fd), loop)
    runtime = Runtime(channel, loop)
    channel.start(runtime.handle, runtime.plain)
    while True:
        # A task of the plugin that raises SystemExit or KeyboardInterrupt stops the loop; the worker goes on.
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001
            loop.call_exception_handler({"message": "a task of the plugin stopped the loop", "exception": error})


def _limit_process(host_pid: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 256 if hard == resource.RLIM_INFINITY else min(256, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # End of file on the channel tells a worker that its host is gone, but not one whose handler never returns.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != host_pid:
            os._exit(1)
