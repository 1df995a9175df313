"""sandbox-fail: every mode ends as its README says, the host and the other plugins go on."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import anyio
import pytest

from eventcore import EventCore
from eventcore.kernel.errors import PluginFailed

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's; run the tests there"),
]
SETTINGS = '[plugins]\nenabled = ["sandbox-fail", "time-query"]\n'
#: Which errors a mode may end with, and the limit that they name.
MODES = {
    "crash": ("Interrupted", None),
    "memory": ("MemoryError", "memory"),
    "network": ("PermissionError", None),
    "exit": ("Interrupted", None),
    "file": ("FileNotFoundError PermissionError", None),
    "time": ("PluginTimeout", "time"),
    "write": ("OSError PermissionError FileNotFoundError", None),
    "process": ("PermissionError", None),
    "sleep": ("PluginTimeout", "time"),
    "syscall": ("PermissionError", None),
    "environment": ("LookupError", None),
    "channel": ("ProtocolViolation", "channel"),
}


@pytest.mark.req("G17", "F12")
async def test_every_mode_ends_in_its_error_and_nobody_else_notices(tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").write_text(SETTINGS)
    ended: dict[str, tuple[str, str | None]] = {}
    beside = Counter[str]()

    async def ask_beside() -> None:
        while True:
            began_in = mode
            assert (await core.plugins.run("time_query", {}))["time"]
            beside[mode] += mode == began_in
            await anyio.sleep(0.02)

    mode = ""
    async with EventCore(tmp_path) as core:
        await core.plugins.run("time_query", {})  # its worker is warm
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_beside)
            for mode in MODES:
                # Two run into the limit of two seconds, the others must not.
                patience = None if MODES[mode][1] == "time" else 60.0
                with pytest.raises(PluginFailed) as caught:
                    await core.plugins.run("sandbox_fail", {"mode": mode}, timeout=patience)
                ended[mode] = caught.value.kind, caught.value.details.get("limit")
            tasks.cancel_scope.cancel()
        failures = [event async for event in core.history.query(type="plugin_error")]
    assert {mode: ended[mode] for mode in MODES if ended[mode][0] not in MODES[mode][0].split()} == {}
    assert {mode: limit for mode, (_, limit) in ended.items()} == {mode: limit for mode, (_, limit) in MODES.items()}
    assert len(failures) == len(MODES)
    # Nobody waits for one that hangs. How long an answer takes is the machine's affair; there is time for dozens.
    assert {mode: beside[mode] for mode in ("time", "sleep") if beside[mode] < 3} == {}


def test_the_readme_and_the_manifest_know_all_modes() -> None:
    folder = Path(__file__).resolve().parents[2] / "plugins" / "examples" / "sandbox-fail"
    for name in ("README.md", "plugin.toml"):
        text = (folder / name).read_text(encoding="utf-8")
        assert [mode for mode in MODES if f"`{mode}`" not in text and f'"{mode}"' not in text] == []
