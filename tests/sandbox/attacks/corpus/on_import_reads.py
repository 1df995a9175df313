"""Does its harm when it is imported, before anybody has called it.

The file is an attack as a whole: its name begins with `on_import_`, and what is planted lies beside it.

Stopped by: confinement before the plugin's first line.
"""

import json
import os

with open(os.path.join(os.path.dirname(__file__), "planted.json")) as _file:
    _planted = json.load(_file)
with open(_planted["secret"]) as _file:
    _found = _file.read()


def run(planted):
    """Only tells."""
    return _found
