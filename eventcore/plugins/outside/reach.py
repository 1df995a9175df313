"""How far one plugin's requests reach: the operator's scope, and below it the manifest's list of hosts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from eventcore.kernel.errors import InvalidInput
from eventcore.kernel.outside import HttpSettings, PluginScope
from eventcore.kernel.ports import Secrets
from eventcore.plugins.manifest import PluginManifest
from eventcore.plugins.outside.hosts import HostRule, covered, rules
from eventcore.plugins.permissions import PluginPermission

_SECRET = re.compile(r"\{\{\s*secrets\.([A-Za-z0-9_-]+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Reach:
    """What one plugin may ask of the network through the host.

    Attributes:
        hosts: the only hosts; None: every host with a public address.
        local: hosts that may have a private address.
        headers: what the host adds, by host; with templates that stand for secrets.
        per_minute: requests.
    """

    hosts: tuple[HostRule, ...] | None
    local: tuple[HostRule, ...]
    headers: tuple[tuple[HostRule, Mapping[str, str]], ...]
    per_minute: float

    def allows(self, scheme: str, host: str, port: int) -> bool:
        """Whether a host may be asked, as far as its name tells."""
        return self.hosts is None or covered(self.hosts, scheme, host, port)

    def is_local(self, scheme: str, host: str, port: int) -> bool:
        """Whether a host may have a private address."""
        return covered(self.local, scheme, host, port)

    def templates(self, scheme: str, host: str, port: int) -> dict[str, str]:
        """The headers that the host adds to a request, as templates."""
        found: dict[str, str] = {}
        for rule, headers in self.headers:
            if rule.covers(scheme, host, port):
                found |= headers
        return found

    def added(self) -> frozenset[str]:
        """The names of all headers that are ever added, in lower case."""
        return frozenset(name.lower() for _, headers in self.headers for name in headers)


def reach_of(manifest: PluginManifest, scope: PluginScope, settings: HttpSettings) -> Reach:
    """The reach of a plugin that was granted `network_access`.

    The operator's list goes before the manifest's. Names of `external_apis` that are hosts count as hosts; a manifest
    that names only such as are none reaches nothing until the operator says which hosts they stand for.

    Raises:
        InvalidInput: a list names something that is no host.
    """
    declared = (*manifest.network_hosts, *(name for name in manifest.external_apis if "." in name))
    narrowed = bool(manifest.network_hosts or manifest.external_apis)
    # What is listed as local is granted by that.
    hosts = rules((*(scope.hosts or declared), *scope.local)) if scope.hosts or narrowed else None
    headers = tuple((HostRule.of(host), dict(given)) for host, given in scope.headers.items())
    return Reach(hosts, rules(scope.local), headers, scope.requests_per_minute or settings.requests_per_minute)


def reach_in_words(
    manifest: PluginManifest, granted: Collection[PluginPermission], scope: PluginScope, settings: HttpSettings
) -> dict[str, str]:
    """What a plugin reaches through the host, for people; nothing where it has no such grant.

    Raises:
        InvalidInput: a list of hosts names something that is no host.
    """
    found = {}
    if PluginPermission.NETWORK_ACCESS in granted:
        reach = reach_of(manifest, scope, settings)
        hosts = "every public host" if reach.hosts is None else ", ".join(map(str, reach.hosts)) or "none"
        found["http"] = f"{hosts}; {reach.per_minute:g} requests a minute"
    if PluginPermission.SYSTEM_ACCESS in granted:
        found["programs"] = ", ".join(scope.programs) or "none"
    return found


def fill(template: str, secrets: Secrets, used: set[str]) -> str:
    """A header's text with its secrets in it; their values are added to `used`.

    Raises:
        InvalidInput: a secret is not there.
    """

    def value(match: re.Match[str]) -> str:
        found = secrets.get(match[1])
        if found is None:
            raise InvalidInput(
                f"a header that the host adds names the secret {match[1]!r}, which is not there",
                hint="set EVENTCORE_SECRET_<NAME>, or put it into the file of [secrets]",
            )
        used.add(found)
        return found

    return _SECRET.sub(value, template)
