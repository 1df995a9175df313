"""Environments of their own for the peers we are compared with."""

from __future__ import annotations

import subprocess
import sys

from tests.benchmarks.measure import SCRATCH, NotMeasured


def environment(*requirements: str) -> str:
    """The Python of a virtual environment that holds a peer; made when it is first asked for.

    Raises:
        NotMeasured: it cannot be installed; with the installer's last words.
    """
    version = "".join(map(str, sys.version_info[:2]))
    folder = SCRATCH / "peers" / f"{requirements[0].replace('==', '-')}-py{version}"
    python, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return str(python)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            last = (ran.stderr or ran.stdout).strip().splitlines()[-1:]
            raise NotMeasured(f"{' and '.join(requirements)} could not be installed: {' '.join(last)[:200]}")
    done.touch()
    return str(python)
