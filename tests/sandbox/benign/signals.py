"""Handlers of signals, alarms, and a signal to itself."""

import os
import signal
import time

EXPECTED = {"own": ["USR1"], "alarm": True}


def run(params):
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append("USR1"))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    until = time.monotonic() + 15
    while not rung and time.monotonic() < until:  # a busy machine may ring late
        time.sleep(0.05)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return {"own": seen, "alarm": bool(rung)}
