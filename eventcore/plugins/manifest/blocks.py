"""Checks of the keys that hold more than a word or a list of words."""

from __future__ import annotations

import re
from typing import Any

from eventcore.kernel.documents import Path
from eventcore.kernel.errors import EventCoreError
from eventcore.kernel.names import CORE_EVENTS, did_you_mean, event_type, is_hook_event, slug
from eventcore.plugins.manifest.reader import Check, Reader, ignore, misspelt
from eventcore.plugins.permissions import NAMES_BY_KEY, WORDS, WORDS_BY_KEY, PluginPermission

STAGES = ("gate", "filter", "reply", "observe")
CHAT_HOOKS = ("on_message", "on_file_upload", "on_command", "on_startup", "on_shutdown")
_KNOWN_HOOKS = (*CHAT_HOOKS, *sorted(f"on_{name}" for name in CORE_EVENTS))

# A manifest is a stranger's, of up to a mebibyte: nothing here may try a text's parts in more than one way.
_AUTHOR = re.compile(r"([^<>]*)<([^<>\s@]++@[^<>\s]++)>\s*")
_INTENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")
_HOOK = re.compile(r"on_[a-z0-9_]{1,120}")
_COMMAND = re.compile(r"/[a-z0-9][a-z0-9_-]{0,63}")
_CAPABILITY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_RANGE = re.compile(r"(?:\s*+,?+\s*+[<>=!~^]{0,3}+\s*+[0-9*][0-9A-Za-z.*+-]*+)*+\s*")
_DEPENDENCY = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9 _-]*?)\s*((?:[<>=!~^].*)?)")
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\s*(?:[\[(<>=!~;@].*)?")
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([bkmg]?)b?")
_MIB_PER = {"": 2.0**-20, "b": 2.0**-20, "k": 2.0**-10, "m": 1.0, "g": 1024.0}
_JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object")


def intents(reader: Reader, path: Path, value: Any) -> None:
    """One intent, or a list of them."""
    many = type(value) is list
    items = reader.texts(path, value) if many else (value,) if reader.text(path, value) else None
    if items is None:
        return
    for index, item in enumerate(items):
        if not _INTENT.fullmatch(item):
            place = (*path, index) if many else path
            reader.error(place, f"{item[:80]!r} is not an intent; use letters, digits, _, -, . and :")
            return
    if not items:
        reader.error(path, "must name at least one intent")
    reader.add("intents", tuple(dict.fromkeys(items)) if many else items)


def author(reader: Reader, path: Path, value: Any) -> None:
    """`Name <a@b.c>` is split; an `email` of its own holds."""
    if type(value) is not str:
        reader.text(path, value)
    elif "<" in value and (found := _AUTHOR.fullmatch(value)):
        reader.fields["author"] = found[1].strip()
        reader.fields.setdefault("email", found[2])
    else:
        reader.fields["author"] = value


def api_version(reader: Reader, path: Path, value: Any) -> None:
    """The plugin API: 1.0 or 1.1."""
    if value in ("1.0", "1.1") and type(value) is str:
        reader.fields["api_version"] = value
    elif reader.text(path, value):
        reader.error(path, f"{value[:80]!r} is not supported; supported: 1.0, 1.1")


def dependencies(list_means: str) -> Check:
    """An object names packages and services; what a list names depends on the dialect."""

    def check(reader: Reader, path: Path, value: Any) -> None:
        if isinstance(value, list):
            (packages if list_means == "packages" else plugins)(reader, path, value)
        elif isinstance(value, dict):
            reader.walk(value, _DEPENDENCIES, path)
        else:
            reader.error(path, "must be a list, or a table with python_packages, system_services, external_apis")

    return check


def names(field: str) -> Check:
    def check(reader: Reader, path: Path, value: Any) -> None:
        if (items := reader.texts(path, value)) is not None:
            reader.add(field, items)

    return check


def packages(reader: Reader, path: Path, value: Any) -> None:
    """Requirement lines for the plugin's environment; options of an installer have no place among them."""
    if (items := reader.texts(path, value)) is None:
        return
    for index, item in enumerate(items):
        if not _PACKAGE.fullmatch(item):
            reader.error((*path, index), f"{item[:80]!r} is not a package requirement such as 'requests>=2.31'")
    reader.add("python_packages", items)


_PLUGIN: dict[str, Check] = {"name": ignore, "version": ignore, "optional": ignore}


def plugins(reader: Reader, path: Path, value: Any) -> None:
    """Other plugins, each as `name>=1.0` or as a table of `name`, `version` and `optional`."""
    if not isinstance(value, list):
        reader.error(path, "must be a list of plugins")
        return
    found = [_plugin(reader, (*path, index), item) for index, item in enumerate(value)]
    reader.add("plugin_dependencies", tuple(filter(None, found)))


def _plugin(reader: Reader, path: Path, item: Any) -> dict[str, Any] | None:
    if isinstance(item, str):
        match = _DEPENDENCY.fullmatch(item)
        item = {"name": match[1], "version": match[2]} if match else {"name": item}
    elif not isinstance(item, dict):
        reader.error(path, "must be 'name>=1.0' or a table of name, version and optional")
        return None
    else:
        reader.walk(item, _PLUGIN, path)
    name, version, optional = item.get("name"), item.get("version", ""), item.get("optional", False)
    if name is None:
        reader.missing(path, "name", item, ("version", "optional"))
        return None
    if not reader.text((*path, "name"), name):
        return None
    if not isinstance(version, str) or not _RANGE.fullmatch(version):
        reader.error((*path, "version"), "must be a version or a range such as '>=1.0,<2'")
        return None
    if not isinstance(optional, bool):
        reader.error((*path, "optional"), "must be true or false")
        return None
    try:
        return {"name": slug(name), "version": version.strip(), "optional": optional}
    except EventCoreError as error:
        reader.error(path, str(error))
        return None


_DEPENDENCIES: dict[str, Check] = {
    "python_packages": packages,
    "system_services": names("system_services"),
    "external_apis": names("external_services"),
    "plugins": plugins,
}


# Permissions


def permissions(reader: Reader, path: Path, value: Any) -> None:
    """A list of words; or an object of J0's keys, or of `required` and `optional`."""
    if isinstance(value, list):
        _words(reader, path, value, WORDS, optional=False)
    elif reader.table(path, value):
        reader.walk(value, _PERMISSIONS, path)


def optional_permissions(reader: Reader, path: Path, value: Any) -> None:
    _words(reader, path, value, WORDS, optional=True)


def required_permissions(reader: Reader, path: Path, value: Any) -> None:
    _words(reader, path, value, WORDS, optional=False)


def _words(reader: Reader, path: Path, value: Any, known: Any, *, optional: bool, key: str = "") -> None:
    for index, word in enumerate(reader.texts(path, value) or ()):
        if word in known:
            declare(reader, f"{key}: {word}" if key else word, known[word], optional=optional)
        else:
            hint = did_you_mean(word, known) or f"; known: {', '.join(known)}"
            reader.error((*path, index), f"{word[:80]!r} is not a permission{hint}")


def declare(reader: Reader, word: str, granted: tuple[PluginPermission, ...], *, optional: bool = False) -> None:
    reader.declared.append({"word": word, "permissions": granted, "optional": optional})


def _by_key(key: str) -> Check:
    return lambda reader, path, value: _words(reader, path, value, WORDS_BY_KEY[key], optional=False, key=key)


def _names_by_key(key: str, field: str) -> Check:
    def check(reader: Reader, path: Path, value: Any) -> None:
        if (items := reader.texts(path, value)) is not None:
            reader.fields[field] = items
            for item in items:
                declare(reader, f"{key}: {item}", NAMES_BY_KEY[key])

    return check


_PERMISSIONS: dict[str, Check] = {
    "required": required_permissions,
    "optional": optional_permissions,
    "data_access": _by_key("data_access"),
    "system_access": _by_key("system_access"),
    "network_access": _names_by_key("network_access", "network_hosts"),
    "external_apis": _names_by_key("external_apis", "external_apis"),
    "database_access": _names_by_key("database_access", "databases"),
}


# Hooks, commands, events, capabilities


def hooks(reader: Reader, path: Path, value: Any) -> None:
    """A list of hook names, or an object of lists, read as their union."""
    lists = value.values() if isinstance(value, dict) else [value]
    found = [item for part in lists for item in reader.texts(path, part) or ()]
    for item in found:
        _hook_name(reader, path, item)
    reader.fields["hooks"] = tuple(dict.fromkeys(found))


def _hook_name(reader: Reader, path: Path, name: str) -> bool:
    if not _HOOK.fullmatch(name):
        reader.error(
            path, f"{name[:80]!r} is not a hook; a hook's name begins with on_{did_you_mean(name, CHAT_HOOKS)}"
        )
        return False
    if name not in _KNOWN_HOOKS and (meant := misspelt(name, _KNOWN_HOOKS)):
        reader.warn(path, f"{name} is no hook of the host; did you mean {meant!r}?")
    return True


def stages(reader: Reader, path: Path, value: Any) -> None:
    """Hook name to stage."""
    if not reader.table(path, value):
        return
    for name, stage in value.items():
        if not _hook_name(reader, (*path, name), name):
            continue
        if stage not in STAGES if isinstance(stage, str) else True:
            hint = did_you_mean(str(stage), STAGES)
            reader.error((*path, name), f"must be one of {', '.join(STAGES)}{hint}")
    reader.fields["stages"] = value


def commands(reader: Reader, path: Path, value: Any) -> None:
    """A list of `name` (with its slash), `description` and `usage`."""
    reader.fields["commands"] = tuple(_tables(reader, path, value, ("name", "description", "usage"), _COMMAND))


def capabilities(reader: Reader, path: Path, value: Any) -> None:
    """A list of `name`, `description`, `input_type` and `output_type`."""
    keys = ("name", "description", "input_type", "output_type")
    reader.fields["capabilities"] = tuple(_tables(reader, path, value, keys, _CAPABILITY))


def _tables(
    reader: Reader, path: Path, value: Any, keys: tuple[str, ...], form: re.Pattern[str]
) -> list[dict[str, str]]:
    """A list of tables of text, each with a `name` of that form that the list holds once."""
    if not isinstance(value, list):
        reader.error(path, f"must be a list of tables with {', '.join(keys)}")
        return []
    known: dict[str, Check] = dict.fromkeys(keys, _text_only)
    found: dict[str, dict[str, str]] = {}
    for index, item in enumerate(value):
        place = (*path, index)
        if not reader.table(place, item):
            continue
        reader.walk(item, known, place)
        name = item.get("name")
        if name is None:
            reader.missing(place, "name", item, keys)
        elif not isinstance(name, str) or not form.fullmatch(name):
            begin = ", beginning with /," if form is _COMMAND else ""
            reader.error((*place, "name"), f"must be a word{begin} of lower case letters, digits, _ and -")
        elif name in found:
            reader.error((*place, "name"), f"{name} is declared twice")
        else:
            found[name] = {key: item[key] for key in keys if isinstance(item.get(key), str)}
    return list(found.values())


def _text_only(reader: Reader, path: Path, value: Any) -> None:
    if type(value) is not str:
        reader.text(path, value)


def emits(reader: Reader, path: Path, value: Any) -> None:
    """Names of the plugin's own events; those of the host are refused."""
    found = reader.texts(path, value) or ()
    for index, name in enumerate(found):
        try:
            stored = event_type(name)
        except EventCoreError as error:
            reader.error((*path, index), str(error))
            continue
        if stored in CORE_EVENTS or is_hook_event(stored):
            reader.error((*path, index), f"only the host emits {name}")
    reader.fields["emits"] = found


def durable_events(reader: Reader, path: Path, value: Any) -> None:
    """Names of events that the plugin has an `on_<event>` function for."""
    found = reader.texts(path, value) or ()
    names: list[str] = []
    for index, name in enumerate(found):
        try:
            stored = event_type(name)
        except EventCoreError as error:
            reader.error((*path, index), str(error))
            continue
        if is_hook_event(stored):
            reader.error((*path, index), f"{name} is a hook, which is asked and not delivered")
        names.append(stored)
    reader.fields["durable_events"] = tuple(dict.fromkeys(names))


# Sandbox and settings


def memory(reader: Reader, path: Path, value: Any) -> None:
    """Docker's notation: bytes as a number, or text like 512m."""
    match = _MEMORY.fullmatch(str(value).lower()) if type(value) in (int, float, str) else None
    if match is None or float(match[1]) <= 0:
        reader.error(path, "must be an amount of memory such as 512m, more than 0")
        return
    size = float(match[1]) * _MIB_PER[match[2]]
    reader.limits["memory_mb"] = min(size, reader.limits.get("memory_mb", size))


def file_access(reader: Reader, path: Path, value: Any) -> None:
    """Folders below the plugin's data folder."""
    found = reader.texts(path, value) or ()
    for index, item in enumerate(found):
        if item.startswith(("/", "~")) or "\\" in item or ".." in item.split("/"):
            reader.error((*path, index), f"{item[:80]!r} must lie below the plugin's data folder, such as ./data/")
    reader.fields["file_access"] = found


def config_schema(reader: Reader, path: Path, value: Any) -> None:
    """JSON Schema, or a flat map of settings, which becomes one."""
    if not reader.table(path, value):
        return
    if isinstance(value.get("properties"), dict) or value.get("type") == "object" or "$schema" in value:
        reader.fields["config_schema"] = value
        return
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, setting in value.items():
        place = (*path, name)
        if not reader.table(place, setting):
            continue
        properties[name] = {key: part for key, part in setting.items() if key != "required"}
        _setting(reader, place, setting)
        if setting.get("required") is True:
            required.append(name)
    reader.fields["config_schema"] = {"type": "object", "properties": properties, "required": required}


def _setting(reader: Reader, path: Path, setting: dict[str, Any]) -> None:
    kind = setting.get("type", "string")
    if kind not in _JSON_TYPES:
        hint = did_you_mean(str(kind), _JSON_TYPES)
        reader.error((*path, "type"), f"must be one of {', '.join(_JSON_TYPES)}{hint}")
    elif "default" in setting and not _is_a(setting["default"], kind):
        reader.error((*path, "default"), f"does not have the type {kind}")
    if not isinstance(setting.get("required", False), bool):
        reader.error((*path, "required"), "must be true or false")


def _is_a(value: Any, kind: str) -> bool:
    types = {"string": str, "integer": int, "number": int | float, "boolean": bool, "array": list, "object": dict}
    return isinstance(value, types[kind]) and (kind == "boolean" or not isinstance(value, bool))
