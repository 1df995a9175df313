"""Versions of plugins, ranges of them, and what a manifest says of the host that it needs.

Versions are those of Semantic Versioning 2.0.0, and are ordered by its section 11. A range is a list of conditions
parted by commas, all of which must hold: `>=1.2`, `<2`, `==1.4.0`, `!=1.5.0`, `^1.2` and a bare `1.2` (the same
leading number that is not 0), `~1.2` and `~=1.2` (the same but for the last number), `*`.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator, Mapping
from functools import total_ordering
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from eventcore.kernel.errors import InvalidInput
from eventcore.plugins.manifest import PluginManifest

_VERSION = re.compile(
    r"(?P<numbers>[0-9]+(?:\.[0-9]+){0,2})(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)
_CONDITION = re.compile(r"(?P<how>>=|<=|==|!=|~=|[<>=~^]?)\s*(?P<version>[0-9].*|\*)")

#: What manifests call the operating systems, and what Python calls them.
_PLATFORMS = {
    "linux": "linux",
    "macos": "darwin",
    "darwin": "darwin",
    "osx": "darwin",
    "windows": "win32",
    "win32": "win32",
}
#: Versions of other hosts: shown, never compared with ours.
FOREIGN = ("min_lao_version", "min_karen_version", "karen_version", "lao_version")


@total_ordering
class Version:
    """A version that can be compared.

    Raises:
        InvalidInput: it is none.
    """

    __slots__ = ("count", "numbers", "pre", "text")

    def __init__(self, text: str) -> None:
        match = _VERSION.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(f"{text[:80]!r} is not a version such as 1.0.0")
        parts = [int(part) for part in match["numbers"].split(".")]
        self.text, self.count = text.strip(), len(parts)
        self.numbers = (*parts, 0, 0)[:3]
        self.pre = tuple(map(_identifier, match["pre"].split("."))) if match["pre"] else None

    def _key(self) -> tuple[Any, ...]:
        # A version without a pre-release comes after all that have one.
        return (self.numbers, self.pre is None, self.pre or ())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key() == other._key()

    def __lt__(self, other: Version) -> bool:
        return self._key() < other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Version({self.text!r})"


def _identifier(text: str) -> tuple[int, int, str]:
    """Numbers come before words, and are compared as numbers."""
    return (0, int(text), "") if text.isdigit() else (1, 0, text)


def fits(version: str, wanted: str) -> bool:
    """Whether a version lies in a range; an empty range holds every version.

    Raises:
        InvalidInput: one of them is none.
    """
    found = Version(version)
    return all(_holds(found, condition) for condition in wanted.split(",") if condition.strip())


def _holds(found: Version, condition: str) -> bool:
    match = _CONDITION.fullmatch(condition.strip())
    if match is None:
        raise InvalidInput(f"{condition.strip()[:80]!r} is not a range such as '>=1.0,<2'")
    if match["version"] == "*":
        return True
    how, limit = match["how"], Version(match["version"].removesuffix(".*"))
    match how:
        case ">=":
            return found >= limit
        case ">":
            return found > limit
        case "<=":
            return found <= limit
        case "<":
            return found < limit
        case "!=":
            return found != limit
        case "==" | "=":
            return found == limit
        case "~" | "~=":
            return limit <= found and found.numbers < _raised(limit, max(0, limit.count - 2))
        case _:
            leading = next((place for place, number in enumerate(limit.numbers) if number), limit.count - 1)
            return limit <= found and found.numbers < _raised(limit, leading)


def _raised(version: Version, place: int) -> tuple[int, ...]:
    """The numbers with the one at `place` raised by one, and zeros behind it."""
    kept = version.numbers[:place]
    return (*kept, version.numbers[place] + 1, 0, 0)[:3]


def unsuitable(manifest: PluginManifest, host: str) -> list[str]:
    """Why a plugin cannot run in this host; empty if it can.

    Args:
        host: EventCore's version.
    """
    return [*_of_the_host(manifest.compatibility, host), *_of_the_system(manifest)]


def _of_the_host(said: Mapping[str, Any], host: str) -> Iterator[str]:
    for key, how in (("min_eventcore_version", ">="), ("max_eventcore_version", "<=")):
        if (wanted := said.get(key)) is None:
            continue
        try:
            limit = Version(str(wanted))
            if how == ">=" and Version(host) < limit:
                yield f"it needs EventCore {wanted} or newer; this is {host}"
            # A limit of 1.4 means 1.4.9 as well.
            if how == "<=" and Version(host).numbers[: limit.count] > limit.numbers[: limit.count]:
                yield f"it needs EventCore {wanted} or older; this is {host}"
        except InvalidInput as error:
            yield f"compatibility.{key}: {error.message}"


def _of_the_system(manifest: PluginManifest) -> Iterator[str]:
    said = manifest.compatibility
    here = platform.python_version()
    wanted = [said["python_version"]] if "python_version" in said else []
    needs = (manifest.marketplace.get("installation") or {}).get("system_requirements") or ()
    # Others (a GPU, a program) are for people to read.
    wanted += [match[1] for text in needs if (match := re.fullmatch(r"[Pp]ython\s*([<>=!~].*)", str(text).strip()))]
    for text in wanted:
        try:
            if not SpecifierSet(str(text)).contains(here, prereleases=True):
                yield f"it needs Python {text}; this is {here}"
        except InvalidSpecifier:
            yield f"{str(text)[:80]!r} is not a range of Python versions such as >=3.11"
    platforms = said.get("platforms")
    if isinstance(platforms, list) and platforms:
        known = {_PLATFORMS.get(str(name).lower(), str(name).lower()) for name in platforms}
        if sys.platform not in known and not known & {"any", "all", "*"}:
            yield f"it runs on {', '.join(map(str, platforms))}; this is {sys.platform}"
