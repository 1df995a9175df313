"""Runs a script in a chroot: `chrooted.py FOLDER SCRIPT [ARGUMENT ...]`, as root.

What is seen there is all of this machine's files, by a bind mount on FOLDER, so only the place of the root is another.
"""

from __future__ import annotations

import os
import sys

from eventcore.plugins.sandbox.linux import calls

if __name__ == "__main__":
    folder, *command = sys.argv[1:]
    calls.unshare(calls.CLONE_NEWNS)
    calls.mount(None, "/", None, calls.MS_REC | calls.MS_PRIVATE)
    calls.mount("/", folder, None, calls.MS_BIND | calls.MS_REC)
    os.chroot(folder)
    os.chdir("/")
    os.execv(sys.executable, [sys.executable, *command])
