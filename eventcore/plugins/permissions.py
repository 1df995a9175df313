"""What a plugin may be granted, and how the words of the manifest dialects map to it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class PluginPermission(StrEnum):
    """Something that a plugin can only do when it was granted. What is not granted is denied."""

    FILESYSTEM_READ = "filesystem_read"
    FILESYSTEM_WRITE = "filesystem_write"
    NETWORK_ACCESS = "network_access"
    DATABASE_READ = "database_read"
    DATABASE_WRITE = "database_write"
    API_ACCESS = "api_access"
    CHAT_ACCESS = "chat_access"
    ADMIN_ACCESS = "admin_access"
    SYSTEM_ACCESS = "system_access"
    PLUGIN_COMMUNICATION = "plugin_communication"
    MEMORY_READ = "memory_read"
    MEMORY_WRITE = "memory_write"
    SCHEDULER = "scheduler"


_P = PluginPermission

#: Words of a plain list, in any dialect: every permission's own name, and the synonyms.
WORDS: Mapping[str, tuple[PluginPermission, ...]] = MappingProxyType(
    {
        **{permission.value: (permission,) for permission in PluginPermission},
        "read_files": (_P.FILESYSTEM_READ,),
        "write_files": (_P.FILESYSTEM_WRITE,),
        "files": (_P.FILESYSTEM_READ, _P.FILESYSTEM_WRITE),
        "network": (_P.NETWORK_ACCESS,),
    }
)

#: Words of the object form, by its key: `{"system_access": ["files"]}`.
WORDS_BY_KEY: Mapping[str, Mapping[str, tuple[PluginPermission, ...]]] = MappingProxyType(
    {
        "data_access": {"read": (_P.MEMORY_READ,), "write": (_P.MEMORY_WRITE,)},
        "system_access": {
            "files": (_P.FILESYSTEM_READ, _P.FILESYSTEM_WRITE),
            "network": (_P.NETWORK_ACCESS,),
            "scheduler": (_P.SCHEDULER,),
        },
    }
)

#: Keys of the object form whose lists hold names of the author's choice; one name is enough to need the permissions.
NAMES_BY_KEY: Mapping[str, tuple[PluginPermission, ...]] = MappingProxyType(
    {
        "network_access": (_P.NETWORK_ACCESS,),
        "external_apis": (_P.NETWORK_ACCESS,),
        "database_access": (_P.DATABASE_READ, _P.DATABASE_WRITE),
    }
)

#: What each permission lets a plugin do, for people.
MEANING: Mapping[PluginPermission, str] = MappingProxyType(
    {
        _P.FILESYSTEM_READ: "read its folder of data",
        _P.FILESYSTEM_WRITE: "change its folder of data",
        _P.NETWORK_ACCESS: "reach hosts on the network",
        _P.DATABASE_READ: "read databases",
        _P.DATABASE_WRITE: "change databases",
        _P.API_ACCESS: "use the host's API with its caller's roles",
        _P.CHAT_ACCESS: "read chat messages and send its own",
        _P.ADMIN_ACCESS: "administer the host through its API",
        _P.SYSTEM_ACCESS: "run programs that the operator lists",
        _P.PLUGIN_COMMUNICATION: "emit events, see other plugins' events, and call other plugins",
        _P.MEMORY_READ: "read the tenant's memory",
        _P.MEMORY_WRITE: "write to the tenant's memory",
        _P.SCHEDULER: "plan events and calls for later",
    }
)

#: What refuses a plugin that was not granted it.
ENFORCED_BY: Mapping[PluginPermission, str] = MappingProxyType(
    {
        **dict.fromkeys(PluginPermission, "host"),
        _P.FILESYSTEM_READ: "kernel",
        _P.FILESYSTEM_WRITE: "kernel",
        _P.NETWORK_ACCESS: "kernel, host",
        _P.SYSTEM_ACCESS: "kernel, host",
    }
)
