"""Which hosts a plugin may ask, by name and by address. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from eventcore.kernel.errors import InvalidInput

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
#: Where clouds tell a machine its own credentials. Never asked, whatever is listed.
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        # The usual one; Amazon's for containers; Alibaba's; Azure's; Oracle's old one; the same over IPv6.
        "169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 168.63.129.16 192.0.0.192 "
        "fd00:ec2::254 fd00:ec2::23 fd20:ce::254".split(),
    )
)
#: IPv6 addresses whose last four bytes are an IPv4 one: RFC 6052, 4291 (2.5.5.1), 2765.
_CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
#: Not for everybody to reach, whatever `is_global` of this Python's release says.
_RESERVED = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "64:ff9b:1::/48", "fec0::/10")))


@dataclass(frozen=True, slots=True)
class HostRule:
    """One entry of a list of hosts.

    Attributes:
        name: a name or address in lower case; behind `*.` any name below it, not itself.
        below: whether it was written with `*.`.
        port: the only port; None for the usual one of the scheme.
    """

    name: str
    below: bool = False
    port: int | None = None

    @classmethod
    def of(cls, text: str) -> HostRule:
        """Read `example.com`, `*.example.com`, `example.com:8443`, `192.0.2.1`, `[2001:db8::1]:8080`.

        Raises:
            InvalidInput: it is none of these.
        """
        whole = text.strip().rstrip(".").lower()
        name, port = ("", None) if "/" in whole else _split_port(whole)
        below = name.startswith("*.")
        name = canonical_host(name.removeprefix("*."))
        if not name or (below and is_address(name)):
            raise InvalidInput(
                f"{text!r} is no host",
                hint="a host is api.example.com, *.example.com or example.com:8443, without a path",
            )
        return cls(name, below, port)

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{'*.' * self.below}{name}{f':{self.port}' if self.port else ''}"

    def covers(self, scheme: str, host: str, port: int) -> bool:
        """Whether a request to `host` (in its canonical form) is one to this host."""
        if port != (self.port or _DEFAULT_PORTS.get(scheme)):
            return False
        return host.endswith(f".{self.name}") if self.below else host == self.name


def rules(texts: Iterable[str]) -> tuple[HostRule, ...]:
    """A list of hosts.

    Raises:
        InvalidInput: one of them is none.
    """
    return tuple(HostRule.of(text) for text in texts)


def covered(found: Iterable[HostRule], scheme: str, host: str, port: int) -> bool:
    """Whether one of the rules covers a request."""
    return any(rule.covers(scheme, host, port) for rule in found)


def canonical_host(text: str) -> str:
    """A host's name as rules compare it: lower case, without a last dot, as ASCII; empty if it cannot be one."""
    text = text.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        name = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        return ""
    labels = name.split(".")
    # A last label of digits alone is read as an address by some resolvers: 0x7f.1, 2130706433.
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or re.fullmatch(r"0x[0-9a-f]*|[0-9]+", labels[-1]):
        return ""
    return name


def is_address(name: str) -> bool:
    """Whether it is an address, not a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def forbidden(address: str, *, local: bool) -> str:
    """Why the host must not connect to an address for a plugin; empty if it may.

    Args:
        local: loopback and private addresses were allowed for this host.
    """
    inner = _inner(ipaddress.ip_address(address.partition("%")[0]))
    if inner in _METADATA:
        return "it is the metadata service of a cloud"
    if inner.is_unspecified or inner.is_multicast:
        return "no single host has it"
    if local:
        return ""
    if inner.is_loopback:
        return "it is this machine"
    if inner.is_link_local:
        return "it is link-local"
    # What is not global: private networks, carriers' ones, documentation, benchmarks, reserved ones.
    special = not inner.is_global or any(inner in one for one in _RESERVED if one.version == inner.version)
    return "it is a private or reserved address" if special else ""


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if int(address) > 1 and any(address in one for one in _CARRIERS):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address


def _split_port(text: str) -> tuple[str, int | None]:
    if text.count(":") > 1 and not text.startswith("["):
        return text, None  # a bare IPv6 address
    name, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):
        return text, None
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInput(f"{text!r} has no port number behind its colon")
    return name, int(port)
