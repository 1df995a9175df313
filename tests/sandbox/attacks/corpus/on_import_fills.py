"""Fills the granted folder while it is loaded, so that this counts as what lay there before.

Stopped by: the host, which looks before it has a plugin loaded.
"""

import json
import os
import time
from pathlib import Path

_PLANTED = json.loads(Path(__file__).with_name("planted.json").read_text())
for _number in range(6):
    with open(os.path.join(_PLANTED["workspace"], str(_number)), "wb") as _file:
        _file.write(bytes(_PLANTED["disk_mb"] << 20))
time.sleep(0.1)


def run(planted):
    return "filled"
