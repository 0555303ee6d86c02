"""Where a webhook may lead. Pure: no Django, and no question to the network.

An address comes from a lead, and the site sends to it from inside the operator's network. So it is read by one strict
reader, whose parts are used from then on (never the text again), and each numeric address that its host turns out to
have is judged on its own before anything is connected.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

MAX_URL = 500
PORTS = {"https": 443, "http": 80}
PUBLIC_PORTS = frozenset({443, 8443})
LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
PRINTABLE = re.compile(r"[\x21-\x7e\xa1-\U0010ffff]+")

Address = IPv4Address | IPv6Address
# Kept for protocols (clouds have services of their own machines there), and once for tunnels; ipaddress calls some of it global.
NOT_REALLY_GLOBAL_4 = tuple(map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")))
# Of the global unicast addresses (2000::/3), these carry an IPv4 address inside or are for documents and tests.
NOT_REALLY_GLOBAL_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
GLOBAL_UNICAST = IPv6Network("2000::/3")


class BadAddress(Exception):
    """Nothing is sent there; the message is meant for the person."""


@dataclass(frozen=True)
class Target:
    """The parts of an address, each in its one canonical form."""

    scheme: str
    host: str  # a name in ASCII, or an address without brackets
    port: int
    path: str  # with the query

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True)
class Rules:
    """What the operator allows: hosts by name, anywhere and by http too; others only if public, by https."""

    hosts: Collection[str] = ()  # "host" on its scheme's own port, or "host:port"
    public: bool = True
    public_ports: Collection[int] = PUBLIC_PORTS

    def lists(self, target: Target) -> bool:
        host = f"[{target.host}]" if ":" in target.host else target.host
        known = {entry.lower().rstrip(".") for entry in self.hosts}
        return f"{host}:{target.port}" in known or (target.port == PORTS[target.scheme] and host in known)


def read_address(url: str, rules: Rules) -> Target:
    """The address in parts, if its form allows to send there. Raises BadAddress.

    A name may still turn out to lead somewhere private: see `check_found`.
    """
    target = _parts(url)
    if rules.lists(target):
        return target
    if not rules.public:
        raise BadAddress("is not among the hosts that the operator of this site lists")
    if target.scheme != "https":
        raise BadAddress("must begin with https://, unless the operator lists its host")
    if target.port not in rules.public_ports:
        ports = " or ".join(map(str, sorted(rules.public_ports)))
        raise BadAddress(f"must be on port {ports}, unless the operator lists its host and port")
    literal = _literal(target.host)
    if (literal and not is_public(literal)) or target.host.rpartition(".")[2] in ("localhost", "local", "internal"):
        raise BadAddress("is not a public address, and the operator doesn't list its host")
    return target


def check_found(found: Iterable[str], target: Target, rules: Rules) -> list[Address]:
    """The numeric addresses that the target's host has, as they came, if all may be connected to. Raises BadAddress.

    One that is not public spoils all: a name that is public today and private a second later is no mistake.
    """
    is_listed = rules.lists(target)
    addresses = []
    for text in found:
        try:
            address = ip_address(text)
        except ValueError:
            raise BadAddress("leads to something that is no address") from None
        if not is_listed and not is_public(address):
            raise BadAddress("leads to an address that is not public, and the operator doesn't list its host")
        addresses.append(address)
    return addresses


def is_public(address: Address) -> bool:
    """Whether it is somebody's on the open internet, as far as the address itself tells."""
    if isinstance(address, IPv4Address):
        is_global = address.is_global and not address.is_multicast and not address.is_reserved
        return is_global and not any(address in network for network in NOT_REALLY_GLOBAL_4)
    return (
        address in GLOBAL_UNICAST
        and address.is_global
        and address.scope_id is None
        and not any(address in network for network in NOT_REALLY_GLOBAL_6)
    )


def _parts(url: str) -> Target:
    if len(url) > MAX_URL:
        raise BadAddress(f"must not be longer than {MAX_URL} characters")
    if not PRINTABLE.fullmatch(url) or "\\" in url:
        raise BadAddress("holds a space or a mark that no address has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadAddress("is not a web address") from None
    if parts.scheme not in PORTS or not url.lower().startswith(f"{parts.scheme}://"):
        raise BadAddress("must begin with https://")
    if "@" in parts.netloc:
        raise BadAddress("must not hold a name or a password")
    if "#" in url:
        raise BadAddress("must not hold a part after #")
    if parts.netloc.endswith(":") or port == 0:
        raise BadAddress("names no port after the colon")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii():
        raise BadAddress("must be written with %-marks after the host")
    return Target(parts.scheme, _host(parts.netloc, parts.hostname or ""), port or PORTS[parts.scheme], path)


def _host(netloc: str, host: str) -> str:
    if netloc.startswith("["):
        try:
            address = IPv6Address(host)
        except ValueError:
            raise BadAddress("holds a wrong IPv6 address") from None
        if address.scope_id is not None:
            raise BadAddress("names a network interface of this machine")
        return str(address)
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        raise BadAddress("names no host") from None
    if not name or len(name) > 253 or not all(LABEL.fullmatch(label) for label in name.split(".")):
        raise BadAddress("names no host")
    last = name.rpartition(".")[2]
    # What ends in a number is read as IPv4 by some, in octal, hexadecimal or with parts left out: here, in one form.
    if last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last):
        try:
            return str(IPv4Address(name))
        except ValueError:
            raise BadAddress("holds a number that is no IPv4 address in its usual form") from None
    return name


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
