"""The first process in a container: runs the worker, and carries its channel over standard input and output.

`python3 -I -B inside.py PACKAGE_ROOT KEPT,VARIABLES`. Standard library only, as all of the worker. Two threads carry
the two directions: a worker that does not read must not keep what it says from being heard. SIGTERM closes the channel,
at which the worker ends.
"""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

_PART = 65_536
#: How long the last words of a worker may take. Seconds.
_LAST = 5.0
#: How long a worker may go on after its host. Seconds.
_GRACE = 1.0


def main() -> None:
    sys.path.append(sys.argv[1])
    kept = {*sys.argv[2].split(",")}
    for name in [name for name in os.environ if name not in kept]:
        del os.environ[name]  # the image's own
    ours, theirs = socket.socketpair()
    worker = os.fork()
    if worker == 0:
        ours.close()
        _work(theirs)
    theirs.close()
    signal.signal(signal.SIGTERM, lambda *_: _shut(ours, socket.SHUT_RDWR))
    threading.Thread(target=_carry_in, args=(ours,), daemon=True).start()
    out = threading.Thread(target=_carry_out, args=(ours,), daemon=True)
    out.start()
    code = _await(worker)
    out.join(_LAST)
    os._exit(code if code >= 0 else 128 - code)


def _work(channel: socket.socket) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # standard output is the channel's; what code writes to it goes where its errors go
    os.close(null)
    from eventcore.plugins.sandbox.worker.main import serve_channel  # after sys.path is set, and not before

    sys.argv[:] = ["worker"]
    serve_channel(channel.detach())


def _carry_in(sock: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, _PART):
            sock.sendall(data)
    # The host is gone. A worker that reads notices it; one that computes is not waited for.
    _shut(sock, socket.SHUT_WR)
    time.sleep(_GRACE)
    os._exit(1)


def _carry_out(sock: socket.socket) -> None:
    with suppress(OSError):
        while data := sock.recv(_PART):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]


def _shut(sock: socket.socket, how: int) -> None:
    with suppress(OSError):  # it is shut already
        sock.shutdown(how)


def _await(worker: int) -> int:
    """Reap everything, as a first process has to, until the worker has ended."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == worker:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main()
