"""The sandbox on the oldest kernel that it is made for: Debian 12's own 6.1, with Landlock ABI 2."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import eventcore
from tests.prove.debian_kernel import kernel_package, run
from tests.sandbox.test_attacks import ALWAYS

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(os.environ.get("EVENTCORE_PROVE") != "1", reason="boots a machine: run it with `make prove`"),
    pytest.mark.timeout(3600),
]
ROOT = Path(eventcore.__file__).resolve().parents[1]
MODES = ("root-full", "nobody-full", "nobody-reduced")
#: An emulated machine takes seconds for each; what differs between kernels is among them.
CHOSEN = (
    # But those that the host stops by looking often enough: how fast it is there says nothing.
    *(one for one in ALWAYS if one not in ("limits.fill_the_workspace", "limits.many_files")),
    *"files.truncate_by_path files.move_a_file files.change_modes kernel.old_gate kernel.memory_file".split(),
    *"processes.fork_once processes.program_by_the_loader processes.kill_another network.another_port".split(),
    *"network.multipath_beside_a_port network.handle_of_the_other_side".split(),
)


def test_on_debians_kernel_every_means_works_and_nothing_gets_through(tmp_path: Path) -> None:
    python = shlex.quote(sys.executable)
    modes = " ".join(f"--mode {mode}" for mode in MODES)
    command = (
        f"cd {shlex.quote(str(ROOT))}; export PYTHONDONTWRITEBYTECODE=1 HOME=/root; "
        f"export PATH={shlex.quote(os.environ['PATH'])}; "
        f"echo; uname -r; {python} -m eventcore sandbox check --json | tr -d '\\n' | sed 's/^/check: /'; echo; "
        f"{python} -m tests.sandbox.attacks {modes} --time 4 --stall 5 {' '.join(CHOSEN)}; echo attacks: $?; true"
    )
    text = run(kernel_package(), command, tmp_path, 3000)
    print(text[-2000:])
    lines = text.splitlines()
    assert any(line.startswith("6.1.") for line in lines)
    report: dict[str, Any] = json.loads(next(line for line in lines if line.startswith("check: "))[7:])
    rows = {row["name"]: row for row in report["means"]}
    assert report["level"] == "full"
    assert rows["landlock"]["detail"] == "ABI 2"
    assert [name for name, row in rows.items() if row["needed"] in ("always", "full") and not row["works"]] == []
    assert not rows["landlock tcp"]["works"]  # so a plugin with a grant of ports is refused there
    assert "attacks: 0" in lines
    for mode in MODES:
        assert any(line.startswith(mode) and f" of {len(CHOSEN)} blocked" in line for line in lines)
