"""Reading `eventcore.toml`, and writing the one that `eventcore init` makes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eventcore.kernel import documents
from eventcore.kernel.errors import HomeError, InvalidSettings, Problem
from eventcore.kernel.names import did_you_mean
from eventcore.kernel.settings import SettingInfo, Settings, known_keys, reference


def read_settings(path: Path) -> Settings:
    """The settings in the file at `path`.

    Raises:
        HomeError: it cannot be read.
        InvalidSettings: it has errors; all of them, each with file, line and key.
    """
    try:
        with path.open("rb") as file:
            # One byte over the limit is enough for the parser to refuse it.
            text = file.read(documents.MAX_BYTES + 1)
    except OSError as error:
        raise HomeError(f"cannot read {path}: {error.strerror}", hint="make one with `eventcore init`") from error
    document = documents.parse(text, str(path), "toml", error=InvalidSettings)
    try:
        return Settings.model_validate(document.value)
    except ValidationError as error:
        raise InvalidSettings(list(_problems(error, document))) from None


def _problems(error: ValidationError, document: documents.Document) -> Iterator[Problem]:
    for item in error.errors(include_url=False, include_input=False):
        # "[key]" marks an error in a table's key; the key itself stands before it.
        place = tuple(part for part in item["loc"] if part != "[key]")
        yield document.problem(place, _message(item, place))


def _message(item: Mapping[str, Any], place: tuple[str | int, ...]) -> str:
    kind: str = item["type"]
    if kind == "extra_forbidden":
        what = "table" if len(place) == 1 else "setting"
        return f"there is no such {what}{did_you_mean(str(place[-1]), known_keys(place[:-1]))}"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind in ("model_type", "dict_type"):
        return "should be a table"
    if kind == "tuple_type":
        return "should be a list"
    text: str = item["msg"]
    return text.removeprefix("Input ")


def write_default(path: Path) -> bool:
    """Write a commented `eventcore.toml` that holds the defaults; False, and nothing changed, if the file exists.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(default_text())
    except FileExistsError:
        return False
    return True


def default_text() -> str:
    """The text of a commented `eventcore.toml`. It is made from the models and reads back as the defaults."""
    lines = ["# The settings of this home. What is left out has the value shown here.", ""]
    section = ""
    for info in reference():
        if info.section != section:
            section = info.section
            lines += [f"[{section}]"]
        lines += _key_lines(info)
    return "\n".join(lines).rstrip() + "\n"


def _key_lines(info: SettingInfo) -> list[str]:
    lines = [f"# {info.description}"]
    if info.default is None:
        lines.append(f"#{info.key} = {toml_value(info.example)}")
    elif info.example is None or info.default == info.example:
        lines.append(f"{info.key} = {toml_value(info.default)}")
    elif isinstance(info.default, dict | tuple):
        # An empty list or table says little; the example shows its form. It stays a comment.
        lines.append(f"#{info.key} = {toml_value(info.example)}")
    else:
        lines.append(f"{info.key} = {toml_value(info.default)}")
    return [*lines, ""]


def toml_value(value: Any) -> str:
    """`value` as TOML, on one line. Knows text, numbers, booleans, lists and tables (written inline).

    Raises:
        TypeError: it is something else.
    """
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return str(int(value)) if value.is_integer() else repr(value)
        case str():
            # A JSON string is a TOML basic string, but for the raw DEL character.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case dict():
            pairs = (f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}" if value else "{}"
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")
