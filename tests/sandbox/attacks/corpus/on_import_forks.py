"""Leaves a process behind while it is imported.

Stopped by: confinement before the plugin's first line.
"""

import os
import time

if os.fork() == 0:
    os.setsid()
    time.sleep(20)
    os._exit(0)


def run(planted):
    """Only tells."""
    return "left a process"
