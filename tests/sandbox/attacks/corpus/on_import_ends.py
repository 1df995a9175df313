"""Ends the process while it is imported.

Stopped by: the supervisor, which tells its caller.
"""

import os

os._exit(0)
