"""Which addresses a seller's URL may reach.

The check sits where a socket is made, on the address that is really connected to: names,
literals, redirects and rebinding all pass there. An explicit table decides; the
properties of `ipaddress` let dozens of special ranges through.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any

from yarl import URL

from stream_judge.errors import ImageBlockedError, ImageUrlError
from stream_judge.images.options import MAX_URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]

# IANA special-purpose registries (IPv4 2024-, IPv6 2025-), multicast, and the metadata and
# wire-server addresses of cloud providers that lie in public space.
_BLOCKED_4 = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24
198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 168.63.129.16/32
100.100.100.200/32
"""
_BLOCKED_6 = """
::/128 ::1/128 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001:db8::/32
2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
"""
_BLOCKED: tuple[Network, ...] = tuple(map(ip_network, (_BLOCKED_4 + _BLOCKED_6).split()))
# IPv6 ranges that carry an IPv4 address, and how far its 32 bits lie from the right end.
_CARRIERS: tuple[tuple[IPv6Network, int], ...] = tuple(
    (IPv6Network(network), shift)
    for network, shift in (
        ("::ffff:0:0/96", 0),
        ("::ffff:0:0:0/96", 0),
        ("::/96", 0),
        ("64:ff9b::/96", 0),
        ("2002::/16", 80),
    )
)
_TEREDO = IPv6Network("2001::/32")
_ISATAP = 0x5EFE
# Characters of a name, with the dot at its end, and of what stands between two of its dots.
_MAX_NAME, _MAX_LABEL = 254, 63
# Of the URL that the running task fetches. aiohttp connects in tasks that it starts for one
# request, and they inherit it.
_HOST: ContextVar[str] = ContextVar("stream_judge_image_host", default="")


def embedded_addresses(address: IPv6Address) -> list[IPv4Address]:
    """Every IPv4 address that an IPv6 address may lead to."""
    value = int(address)
    found = [IPv4Address(value >> shift & 0xFFFFFFFF) for net, shift in _CARRIERS if address in net]
    if address in _TEREDO:
        found += [IPv4Address(value >> 64 & 0xFFFFFFFF), IPv4Address(~value & 0xFFFFFFFF)]
    if value >> 32 & 0xFFFF == _ISATAP:
        found.append(IPv4Address(value & 0xFFFFFFFF))
    return found


def is_public(address: Address) -> bool:
    """Whether an address, and every address it embeds, belongs to the public Internet."""
    if any(address in network for network in _BLOCKED if network.version == address.version):
        return False
    if isinstance(address, IPv6Address):
        return all(is_public(inner) for inner in embedded_addresses(address))
    return True


def host_of(url: URL) -> str:
    """The host of a URL, in lower case; empty if it names none.

    A dot at its end stays: such a name is not completed, and can lead elsewhere than the same
    one without.
    """
    return (url.raw_host or "").lower()


def _is_host(host: str) -> bool:
    """Whether it is ASCII whose labels have the lengths of a name's, as an address's have too."""
    labels = host.removesuffix(".").split(".")
    lengths_fit = all(0 < len(label) <= _MAX_LABEL for label in labels)
    return host.isascii() and lengths_fit and len(host) <= _MAX_NAME


class AddressGuard:
    """Decides about URLs and addresses.

    Args:
        hosts: Hosts that may have any address and any port.
        networks: Non-public networks that may be reached.
        ports: Ports that the URLs of all other hosts may name, those in the networks too.
    """

    def __init__(
        self, hosts: Iterable[str], networks: Iterable[Network], ports: Iterable[int]
    ) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._networks = tuple(networks)
        self._ports = frozenset(ports)

    def parse(self, text: str) -> URL:
        """A URL that may be tried.

        Raises:
            ImageUrlError: Length, syntax, scheme, userinfo, a host that no resolver could be
                asked for, or a port that is not allowed.
        """
        if len(text) > MAX_URL:
            # Cut off it would lead to another picture than the one in the catalogue.
            raise ImageUrlError(f"the URL is longer than {MAX_URL} characters")
        try:
            url = URL(text)
            host, port = url.raw_host, url.port
        except (ValueError, TypeError) as exc:
            raise ImageUrlError(f"not a URL: {exc}") from exc
        if url.scheme not in ("http", "https") or not host:
            raise ImageUrlError(f"scheme {url.scheme!r} or host missing; http and https only")
        if url.raw_user is not None or url.raw_password is not None:
            raise ImageUrlError("the URL carries a user or a password")
        if not text.isprintable():
            raise ImageUrlError("the URL has characters that cannot be printed")
        if not _is_host(host):
            raise ImageUrlError("the host is no name and no address")
        if port not in self._ports and host.lower() not in self._hosts:
            raise ImageUrlError(f"port {port} is not allowed")
        return url

    def check(self, host: str, address: str) -> None:
        """Refuse an address that is about to be connected to.

        Raises:
            ImageBlockedError: Not public, and not allowed by a setting.
        """
        found = ip_address(address.partition("%")[0])
        if host.lower() in self._hosts or any(found in net for net in self._networks):
            return
        if not is_public(found):
            raise ImageBlockedError("the URL leads to an address that is not public")

    @contextlib.contextmanager
    def connecting(self, url: URL) -> Iterator[None]:
        """Within it, sockets are made for `url`, and for its host's allowances."""
        token = _HOST.set(url.raw_host or "")
        try:
            yield
        finally:
            _HOST.reset(token)

    def socket_factory(self) -> Callable[[AddressInfo], socket.socket]:
        """A factory for `aiohttp.TCPConnector` that refuses addresses by itself."""

        def make(info: AddressInfo) -> socket.socket:
            family, kind, protocol, _, address = info
            # An allowed host opens its addresses to its own URLs only: another URL may name
            # the same private address.
            self.check(_HOST.get(), str(address[0]))
            made = socket.socket(family, kind, protocol)
            made.setblocking(False)
            return made

        return make

    def resolved(self, host: str, addresses: Iterable[str]) -> None:
        """Refuse a resolver's answers unless every one of them is allowed.

        Raises:
            ImageBlockedError: One of the answers is not allowed: none of them is used.
        """
        for address in addresses:
            self.check(host, address)
