"""Settings of plugins, in layers: each layer goes before the ones above it in this list.

1. defaults of the manifest's `config_schema`,
2. `config.yaml` beside the manifest,
3. `[plugins.settings.<slug>]` in `eventcore.toml`,
4. what was set at run time (`eventcore plugins config`), kept in the store,
5. the environment: `EVENTCORE_PLUGIN_<SLUG>__<KEY>`.

What comes of them is checked against `config_schema`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventcore.kernel import documents
from eventcore.kernel.errors import EventCoreError, InvalidInput, Problem
from eventcore.kernel.json import decode, encode
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.ports import Secrets
from eventcore.kernel.records import PluginSetting
from eventcore.kernel.schemas import Schema
from eventcore.plugins.plain_files import read_plain
from eventcore.plugins.registry import PluginRecord

#: File of default values beside a manifest.
DEFAULTS_FILE = "config.yaml"
#: What `plugins config` prints in place of a secret.
MASK = "***"

_MAX_VALUE = 64 * 1024
_MAX_KEY = 128


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it stands.

    Attributes:
        value: what the layer says; a secret is still its name, `{"secret": NAME}`.
        source: the layer, in words: `default`, `config.yaml`, `eventcore.toml`, `set`, or the variable's name.
        type: the type that the schema gives it, or "".
        secret: whether its value is never shown.
    """

    key: str
    value: Any
    source: str
    type: str = ""
    description: str = ""
    required: bool = False
    secret: bool = False
    is_set: bool = True

    def as_dict(self) -> dict[str, Any]:
        """As JSON for faces, with a secret masked."""
        shown = MASK if self.secret and self.is_set else self.value
        return {
            "key": self.key,
            "value": shown,
            "source": self.source,
            "type": self.type or None,
            "description": self.description,
            "required": self.required,
            "secret": self.secret,
        }


class Configuration:
    """The settings of all plugins.

    Args:
        declared: what `eventcore.toml` says, by slug.
        secrets: where the values of `{secret = "NAME"}` come from.
        environ: the environment.
    """

    def __init__(self, declared: Mapping[str, Mapping[str, Any]], secrets: Secrets, environ: Mapping[str, str]) -> None:
        self._declared, self._secrets, self._environ = declared, secrets, environ
        self._stored: dict[str, dict[str, Any]] = {}
        self._files: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}

    def restore(self, rows: Iterable[PluginSetting]) -> None:
        """Take over what was set at run time before."""
        self._stored = {}
        for row in rows:
            self._stored.setdefault(row.plugin, {})[row.key] = decode(row.raw)

    def values(self, record: PluginRecord) -> dict[str, Any]:
        """What the plugin's code gets: every layer, with secrets looked up.

        Raises:
            InvalidInput: a secret is not there, or the settings do not fit the schema.
        """
        found = self._layered(record)
        values = {key: self._looked_up(record.slug, key, value) for key, (value, _) in found.items()}
        if not record.described().config_schema:
            return values
        if wrong := self._schema(record).wrong(values):
            raise InvalidInput(
                f"the settings of {record.slug} are not right: {'; '.join(_masked(record, wrong, values))}",
                hint=_how_to_set(record, values),
            )
        return values

    def shown(self, record: PluginRecord) -> list[Setting]:
        """Every setting that the plugin has or may have, with the layer that it comes from, by key."""
        rules, found = _rules(record), self._layered(record)
        required = (record.described().config_schema or {}).get("required", ())
        return [
            _setting(key, found.get(key), rules.get(key, {}), required=key in required)
            for key in sorted({*rules, *found})
        ]

    def accept(self, record: PluginRecord, key: str, value: Any) -> Any:
        """The value to store for a setting; text becomes what the schema's type wants.

        Raises:
            InvalidInput: the plugin has no such setting, the value does not fit, or it is a secret in plain text.
        """
        rules = _rules(record)
        schema = record.described().config_schema or {}
        if not key or len(key) > _MAX_KEY:
            raise InvalidInput(f"the name of a setting has 1 to {_MAX_KEY} characters")
        if key not in rules and schema.get("additionalProperties", not rules) is False:
            raise InvalidInput(
                f"{record.slug} has no setting {key!r}{did_you_mean(key, rules)}",
                hint=f"it has: {', '.join(sorted(rules)) or 'none'}",
            )
        rule = rules.get(key, {})
        if _is_secret(rule) and not names_secret(value):
            raise InvalidInput(
                f"{key} is a secret of {record.slug}; its value is not kept among the settings",
                hint=f"put it among the secrets, and name it: eventcore plugins config {record.slug} {key} "
                f'\'{{"secret": "NAME"}}\'',
            )
        accepted = from_text(value, rule.get("type")) if isinstance(value, str) else value
        encode(accepted, limit=_MAX_VALUE, what=f"the setting {key}")
        if not names_secret(accepted) and (wrong := Schema({"properties": {key: rule}}).wrong({key: accepted})):
            raise InvalidInput(f"{record.slug}: {wrong[0]}", hint=_wanted(key, rule))
        return accepted

    def put(self, record: PluginRecord, key: str, value: Any) -> None:
        """Hold a setting that has been stored."""
        self._stored.setdefault(record.slug, {})[key] = value

    def drop(self, slug: str, key: str | None = None) -> None:
        """Forget one setting, or all, that were set at run time."""
        if key is None:
            self._stored.pop(slug, None)
        else:
            self._stored.get(slug, {}).pop(key, None)

    def stored(self, slug: str) -> dict[str, Any]:
        """What was set at run time."""
        return dict(self._stored.get(slug, {}))

    # -- layers ------------------------------------------------------------------------------------------------------

    def _layered(self, record: PluginRecord) -> dict[str, tuple[Any, str]]:
        """Key -> (value, source). Keys of the environment are those that another layer or the schema has."""
        slug, rules = record.slug, _rules(record)
        found: dict[str, tuple[Any, str]] = {}
        layers: tuple[tuple[str, Mapping[str, Any]], ...] = (
            ("default", {key: rule["default"] for key, rule in rules.items() if "default" in rule}),
            (DEFAULTS_FILE, self._file(record)),
            ("eventcore.toml", self._declared.get(slug, {})),
            ("set", self._stored.get(slug, {})),
        )
        for source, layer in layers:
            found.update((key, (value, source)) for key, value in layer.items())
        for key in {*rules, *found}:
            name = variable(slug, key)
            if (text := self._environ.get(name)) is not None:
                found[key] = (from_text(text, rules.get(key, {}).get("type")), name)
        return found

    def _file(self, record: PluginRecord) -> dict[str, Any]:
        """`config.yaml` beside the manifest, read again when it has changed.

        Raises:
            InvalidInput: it is no table, or cannot be read.
        """
        path = f"{record.folder}/{DEFAULTS_FILE}"
        try:
            status = os.stat(path)
        except OSError:
            return {}
        mark = (status.st_mtime_ns, status.st_size)
        kept = self._files.get(record.slug)
        if kept is None or kept[0] != mark:
            kept = self._files[record.slug] = (mark, read_defaults(Path(path)))
        return kept[1]

    def _schema(self, record: PluginRecord) -> Schema:
        return Schema(record.described().config_schema or {})

    def _looked_up(self, slug: str, key: str, value: Any) -> Any:
        if not names_secret(value):
            return value
        name = value["secret"]
        found = self._secrets.get(name)
        if found is None:
            known_as = re.sub(r"[^A-Z0-9]", "_", f"EVENTCORE_SECRET_{name.upper()}")
            raise InvalidInput(
                f"the setting {key} of {slug} names the secret {name!r}, which is not there",
                hint=f"set {known_as}, or put it into the file that [secrets] names",
            )
        return found


def read_defaults(path: Path) -> dict[str, Any]:
    """The table in a `config.yaml`.

    Raises:
        InvalidInput: it cannot be read, or is no table.
    """
    try:
        text = read_plain(path.parent, path.name, documents.MAX_BYTES)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    value = documents.parse(text, str(path), "yaml").value
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(str(Problem(str(path), 1, "", "must be a table of settings and their default values")))
    return value


def variable(slug: str, key: str) -> str:
    """The environment variable of a setting: two underscores part plugin and key, so that no two share a name."""
    return f"EVENTCORE_PLUGIN_{_upper(slug)}__{_upper(key)}"


def _upper(name: str) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", name.upper())


def names_secret(value: Any) -> bool:
    """Whether a value is `{"secret": NAME}`."""
    return isinstance(value, dict) and value.keys() == {"secret"} and isinstance(value["secret"], str)


_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})


def from_text(text: str, kind: Any) -> Any:
    """What a text means where the schema wants a value of the type `kind`; the text itself if it means no such thing.

    Without a type, text that is a JSON number, boolean, list or table counts as that.
    """
    if kind == "string":
        return text
    if kind == "boolean":
        word = text.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else text
    try:
        value = decode(text.encode())
    except (EventCoreError, ValueError):
        return text
    return value if kind is not None or not isinstance(value, str) else text


def _rules(record: PluginRecord) -> dict[str, dict[str, Any]]:
    properties = (record.described().config_schema or {}).get("properties", {})
    if not isinstance(properties, dict):
        return {}
    return {key: rule for key, rule in properties.items() if isinstance(rule, dict)}


def _is_secret(rule: Mapping[str, Any]) -> bool:
    return rule.get("secret") is True or rule.get("format") == "password"


def _setting(key: str, found: tuple[Any, str] | None, rule: Mapping[str, Any], *, required: bool) -> Setting:
    value, source = found if found is not None else (None, "not set")
    return Setting(
        key,
        value,
        source,
        type=str(rule.get("type", "")),
        description=str(rule.get("description", "")),
        required=required,
        secret=_is_secret(rule) or names_secret(value),
        is_set=found is not None,
    )


def _masked(record: PluginRecord, wrong: list[str], values: Mapping[str, Any]) -> list[str]:
    """The checker's messages quote values; those of secrets are taken out."""
    hidden = [str(values[key]) for key, rule in _rules(record).items() if _is_secret(rule) and values.get(key)]
    for value in hidden:
        wrong = [message.replace(value, MASK) for message in wrong]
    return wrong


def _wanted(key: str, rule: Mapping[str, Any]) -> str | None:
    kind = rule.get("type")
    article = "an" if str(kind)[:1] in "aeiou" else "a"
    return f"{key} is {article} {kind}" if kind else None


def _how_to_set(record: PluginRecord, values: Mapping[str, Any]) -> str:
    required = (record.described().config_schema or {}).get("required", ())
    key = next((key for key in required if key not in values), "KEY")
    return (
        f"eventcore plugins config {record.slug} {key} VALUE, "
        f"or set it under [plugins.settings.{record.slug}] in eventcore.toml"
    )
