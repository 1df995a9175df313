"""What a plugin's code says of itself in `__plugin_info__`, which its worker reads after loading."""

from __future__ import annotations

from eventcore.kernel.errors import Problem
from eventcore.plugins.registry import PluginRecord

_SHOWN = 40


def differences(record: PluginRecord) -> list[Problem]:
    """Warnings where the code says something else than the manifest; none before it was loaded."""
    said = (record.registered or {}).get("info")
    if record.manifest is None or not isinstance(said, dict) or "version" not in said:
        return []
    version = str(said["version"])[:_SHOWN]
    if version == record.manifest.version:
        return []
    message = f"__plugin_info__ says version {version}, and the manifest {record.manifest.version}"
    place = str(record.path / record.manifest.entry_file)
    return [Problem(place, None, "__plugin_info__", message, warning=True)]
