"""Where secrets come from: a file, the environment, or several sources. Values never show in repr, logs or errors."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path

from eventcore.kernel.errors import HomeError, InvalidSettings, Problem
from eventcore.kernel.ports import Secrets

_MAX_SIZE = 1024 * 1024


class FileSecrets:
    """Secrets from a TOML file, or JSON where the name ends in `.json`: one flat table of text values.

    The file is read once, here.

    Args:
        path: the file. It must belong to this user (or root) and be closed to group and others.

    Raises:
        HomeError: it cannot be read, or others may read it.
        InvalidSettings: it is not a flat table of texts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = _parse(_read_private(path), path)

    def get(self, name: str) -> str | None:
        """The value, or None."""
        return self._values.get(name)

    def names(self) -> list[str]:
        """The names in the file, sorted."""
        return sorted(self._values)

    def __repr__(self) -> str:
        return f"FileSecrets({str(self.path)!r}, {len(self._values)} secrets)"


class EnvSecrets:
    """Secrets from environment variables: `openai-key` is `EVENTCORE_SECRET_OPENAI_KEY`.

    Args:
        prefix: what the variables' names begin with.
        environ: the environment; by default the process's own, read at each `get`.
    """

    def __init__(self, prefix: str = "EVENTCORE_SECRET_", environ: Mapping[str, str] | None = None) -> None:
        self.prefix = prefix
        self._environ = os.environ if environ is None else environ

    def get(self, name: str) -> str | None:
        """The value, or None. Letters are raised to upper case, and all but letters and digits become `_`."""
        return self._environ.get(self.prefix + re.sub(r"[^A-Z0-9]", "_", name.upper()))

    def __repr__(self) -> str:
        return f"EnvSecrets({self.prefix!r})"


class ChainSecrets:
    """Several sources; the first that has a name gives its value."""

    def __init__(self, *sources: Secrets) -> None:
        self.sources = sources

    def get(self, name: str) -> str | None:
        """The value, or None."""
        return next((value for source in self.sources if (value := source.get(name)) is not None), None)

    def __repr__(self) -> str:
        return f"ChainSecrets{self.sources!r}"


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Of the opened file, so that nobody can put another in its place between the check and the reading.
            _check_private(path, os.fstat(file.fileno()))
            raw = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise HomeError(f"cannot read the secrets file {path}: {error.strerror}") from error
    if len(raw) > _MAX_SIZE:
        raise HomeError(f"the secrets file {path} is larger than {_MAX_SIZE:,} bytes")
    return raw


def _check_private(path: Path, info: os.stat_result) -> None:
    if os.name != "posix":
        return
    if info.st_uid not in (os.geteuid(), 0):
        raise HomeError(f"the secrets file {path} belongs to another user (uid {info.st_uid})")
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o077:
        raise HomeError(f"others may use the secrets file {path} (mode {mode:04o})", hint=f"chmod 600 {path}")


def _parse(raw: bytes, path: Path) -> dict[str, str]:
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = raw.decode("utf-8-sig")
        values = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # The parser's own words may quote the text, and so a secret; only the line is passed on.
        raise InvalidSettings([Problem(str(path), _line(error), "", f"is not {kind} in UTF-8")]) from None
    if not isinstance(values, dict):
        raise InvalidSettings([Problem(str(path), None, "", "should be one table of names and texts")])
    wrong = [Problem(str(path), None, key, "should be text") for key, value in values.items() if not _is_text(value)]
    if wrong:
        raise InvalidSettings(wrong)
    return values


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _line(error: Exception) -> int | None:
    if isinstance(error, json.JSONDecodeError):
        return error.lineno
    found = re.search(r"at line (\d+)", str(error))
    return int(found[1]) if found else None
