"""What a plugin's grants and limits let its worker use: the table of permissions, as far as the kernel enforces it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.settings import SandboxSettings
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord
from eventcore.plugins.sandbox.confined import Machine
from eventcore.plugins.sandbox.enforcement import limits
from eventcore.plugins.sandbox.spec import Allowance


class SandboxRules:
    """How this engine confines plugins.

    Args:
        settings: what the operator says.
        data: where each plugin has a folder of data; None: there is none, and grants on files give nothing.
        machine: tells what this machine enforces.
        trusted: plugins that the operator lets run in the host's own process, if they ask for that.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        data: Path | None,
        machine: Callable[[], Awaitable[Machine | None]],
        trusted: Collection[str] = (),
    ) -> None:
        self._trusted = frozenset(trusted)
        self._settings, self._data, self._machine = settings, data, machine
        #: The home's folder, whose other contents are none of a plugin's business; empty: there is no home.
        self.home = str(data.parent.parent) if data is not None else ""

    def allowance(self, record: PluginRecord) -> Allowance:
        """What one worker of the plugin may use."""
        return allowance(record, self._settings, self._data)

    def inline(self, record: PluginRecord) -> bool:
        """Whether the plugin runs in the host's own process: it asks for that, does not forbid it, and is trusted."""
        wish = record.described().sandbox
        return wish.unsandboxed and not wish.required and record.slug in self._trusted

    async def enforcement(self, record: PluginRecord, seconds: float) -> dict[str, Any]:
        """The level of the plugin's sandbox on this machine, and what enforces each of its limits.

        Args:
            seconds: the time limit of one call.
        """
        if self.inline(record):
            return {"level": "inline", "limits": []}
        machine = await self._machine()
        if machine is None:
            return {"level": "none", "limits": []}
        return {"level": machine.level, "limits": limits(self.allowance(record), machine, seconds)}


def allowance(record: PluginRecord, settings: SandboxSettings, data: Path | None) -> Allowance:
    """What one worker of the plugin may use.

    The manifest may ask for less than the settings give, never for more. The folders that it lists lie beneath its
    folder of data, where its code begins; they are reached only with `filesystem_read`, and changed only with
    `filesystem_write`.

    Args:
        data: where each plugin has a folder of data, if there is such a place.

    Raises:
        InvalidInput: a folder that it lists leads out of its folder of data.
    """
    manifest, granted = record.described(), record.granted
    write = PluginPermission.FILESYSTEM_WRITE in granted
    read = write or PluginPermission.FILESYSTEM_READ in granted
    base = data / record.slug if data is not None and read else None
    folders = tuple(_folders(record, base)) if base is not None else ()
    limits = manifest.limits
    return Allowance(
        read=() if write else folders,
        write=folders if write else (),
        cwd=str(base.resolve()) if base is not None else "",
        memory_mb=min(limits.memory_mb or settings.memory_mb, settings.memory_mb),
        cpu_percent=_lower(limits.cpu_percent, settings.cpu_percent),
        disk_mb=settings.disk_mb,
        threads=settings.threads,
        isolation=settings.isolation,
        full=settings.require == "full",
    )


def _lower(wanted: float | None, given: float) -> float:
    """The lower of two limits, of which 0 or None is no limit."""
    return min((one for one in (wanted, given) if one), default=0.0)


def _folders(record: PluginRecord, base: Path) -> list[str]:
    """The folders of the manifest beneath the plugin's folder of data, made where they are not there; all of it if it
    lists none. Resolved, so that no link leads a grant elsewhere.

    Raises:
        InvalidInput: one of them leads out of it.
    """
    base.mkdir(parents=True, exist_ok=True)
    found = []
    for name in record.described().file_access or (".",):
        path = (base / name).resolve()
        if not path.is_relative_to(base.resolve()):
            raise InvalidInput(
                f"{record.slug} asks for the folder {name!r}, which leads out of its folder of data, {base}",
                hint="remove the symbolic link there",
            )
        path.mkdir(parents=True, exist_ok=True)
        found.append(str(path))
    return list(dict.fromkeys(found))
