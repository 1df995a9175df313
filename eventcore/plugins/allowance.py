"""What a plugin's grants and limits let its worker use: the table of permissions, as far as the kernel enforces it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.outside import PluginScope
from eventcore.kernel.settings import SandboxSettings
from eventcore.plugins.outside.lookup import find
from eventcore.plugins.permissions import PluginPermission
from eventcore.plugins.registry import PluginRecord
from eventcore.plugins.sandbox.enforcement import container_limits, limits
from eventcore.plugins.sandbox.machine import Machine
from eventcore.plugins.sandbox.spec import EVEN_SHARES, Allowance, ContainerWish

_NO_SCOPE = PluginScope()


class SandboxRules:
    """How this engine confines plugins.

    Args:
        settings: what the operator says.
        data: where each plugin has a folder of data; None: there is none, and grants on files give nothing.
        machine: tells what this machine enforces.
        scopes: how far grants reach, by slug.
        path: where programs are looked up.
        trusted: plugins that the operator lets run in the host's own process, if they ask for that.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        data: Path | None,
        machine: Callable[[], Awaitable[Machine | None]],
        scopes: Mapping[str, PluginScope] | None = None,
        path: tuple[str, ...] = (),
        trusted: Collection[str] = (),
    ) -> None:
        self._trusted = frozenset(trusted)
        self._settings, self._data, self._machine = settings, data, machine
        self._scopes, self._path = scopes or {}, path
        #: The home's folder, whose other contents are none of a plugin's business; empty: there is no home.
        self.home = str(data.parent.parent) if data is not None else ""

    def allowance(self, record: PluginRecord) -> Allowance:
        """What one worker of the plugin may use."""
        scope = self._scopes.get(record.slug, PluginScope())
        return allowance(record, self._settings, self._data, scope, self._path)

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
        allowed, level, rows = self.allowance(record), "none", []
        if allowed.container is not None:
            level, rows = "container", container_limits(allowed, allowed.container, seconds)
        elif (machine := await self._machine()) is not None:
            level, rows = machine.level, limits(allowed, machine, seconds)
        sources = _sources(record, self._settings)
        return {"level": level, "limits": [{**row, "source": sources.get(row["limit"], "eventcore")} for row in rows]}


def allowance(
    record: PluginRecord,
    settings: SandboxSettings,
    data: Path | None,
    scope: PluginScope = _NO_SCOPE,
    path: tuple[str, ...] = (),
) -> Allowance:
    """What one worker of the plugin may use.

    The manifest may ask for less than the settings give, never for more. The folders that it lists lie beneath its
    folder of data, where its code begins; they are reached only with `filesystem_read`, and changed only with
    `filesystem_write`.

    Args:
        data: where each plugin has a folder of data, if there is such a place.
        scope: what the operator gives beyond that to a plugin with the permission for it.
        path: where programs are looked up.

    Raises:
        InvalidInput: a folder that it lists leads out of its folder of data, or one of the scope cannot be granted.
    """
    manifest, granted = record.described(), record.granted
    write = PluginPermission.FILESYSTEM_WRITE in granted
    read = write or PluginPermission.FILESYSTEM_READ in granted
    base = data / record.slug if data is not None and read else None
    folders = tuple(_folders(record, base)) if base is not None else ()
    more_read = _granted_folders(record, "read", scope.read, data) if read else ()
    more_write = _granted_folders(record, "write", scope.write, data) if write else ()
    limits, system = manifest.limits, PluginPermission.SYSTEM_ACCESS in granted
    return Allowance(
        read=more_read if write else (*folders, *more_read),
        write=(*folders, *more_write) if write else (),
        cwd=str(base.resolve()) if base is not None else "",
        programs=tuple(dict.fromkeys(one for name in scope.execute for one in find(name, path).executes))
        if system
        else (),
        ports=scope.ports if PluginPermission.NETWORK_ACCESS in granted else (),
        memory_mb=min(limits.memory_mb or settings.memory_mb, settings.memory_mb),
        cpu_percent=_lower(limits.cpu_percent, settings.cpu_percent),
        disk_mb=settings.disk_mb,
        data_mb=settings.data_mb,
        threads=settings.threads,
        isolation=settings.isolation,
        full=settings.require == "full",
        env=manifest.sandbox.env_whitelist,
        container=_container(record, settings, scope),
    )


def _container(record: PluginRecord, settings: SandboxSettings, scope: PluginScope) -> ContainerWish | None:
    """The container that a plugin runs in, or None if it runs in a process."""
    manifest = record.described()
    wanted = manifest.sandbox
    if (wanted.tier or settings.tier) != "container":
        return None
    return ContainerWish(
        image=manifest.sandbox.docker_image or wanted.image,
        dockerfile=(record.path / "Dockerfile").is_file(),
        network=scope.network if PluginPermission.NETWORK_ACCESS in record.granted else "",
        user=wanted.user,
        working_dir=wanted.working_dir,
        env=wanted.env_whitelist,
        cpu_shares=manifest.limits.cpu_shares or EVEN_SHARES,
    )


def _granted_folders(record: PluginRecord, key: str, names: tuple[str, ...], data: Path | None) -> tuple[str, ...]:
    """The places that the operator grants by path, resolved.

    Raises:
        InvalidInput: one of them is no absolute path, is not there, or would show the engine's own files.
    """
    found = []
    for name in names:
        place = Path(name).resolve()
        wrong = ""
        if not Path(name).is_absolute():
            wrong = "is no absolute path"
        elif not place.exists():
            wrong = "is not there"
        elif data is not None and data.parent.resolve().is_relative_to(place):
            wrong = "holds the engine's own files"
        if wrong:
            raise InvalidInput(f"{name!r} {wrong}", hint=f"it stands in [plugins.scopes.{record.slug}] {key}")
        found.append(str(place))
    return tuple(found)


def _sources(record: PluginRecord, settings: SandboxSettings) -> dict[str, str]:
    """Who says what a limit is: the manifest where it asks for less than the settings give."""
    asked = record.described().limits
    lower = {
        "time": asked.timeout_seconds is not None,
        "memory": asked.memory_mb is not None and asked.memory_mb <= settings.memory_mb,
        "cpu": asked.cpu_percent is not None and asked.cpu_percent <= (settings.cpu_percent or asked.cpu_percent),
        "threads": False,
        "disk": False,
    }
    return {name: "manifest" if manifest else "settings" for name, manifest in lower.items()}


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
