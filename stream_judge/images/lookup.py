"""From a name to its addresses: by the system, or by name servers that are set."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import dns.exception
import dns.resolver
from dns.nameserver import Do53Nameserver

from stream_judge.images.options import NameServer

#: From a host's name and an address family (0: any) to families and addresses. Blocks, up to 10 s
#: and more where nothing answers; raises `OSError` where the name leads nowhere.
Lookup = Callable[[str, int], list[tuple[int, str]]]

# For the addresses of one family: one server's time to answer, and that of all.
_SERVER_S, _ALL_S = 1.5, 5.0
_KINDS = {socket.AF_INET: "A", socket.AF_INET6: "AAAA"}


def make_lookup(servers: Sequence[NameServer]) -> Lookup:
    """A lookup by some name servers, or by the system if there are none."""
    return _SetServers(servers) if servers else _ask_system


def _ask_system(host: str, family: int) -> list[tuple[int, str]]:
    try:
        infos = socket.getaddrinfo(
            host, None, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
    except socket.gaierror:
        _see_to_the_machine()
        raise
    return [(found, str(address[0])) for found, _, _, _, address in infos]


class _SetServers:
    """Asks name servers itself: neither the hosts file nor search domains have a say.

    Args:
        servers: Asked in this order; the next one when one does not answer, or cannot tell.
    """

    def __init__(self, servers: Sequence[NameServer]) -> None:
        self._resolver = dns.resolver.Resolver(configure=False)
        self._resolver.nameservers = [
            Do53Nameserver(str(server.address), server.port) for server in servers
        ]
        self._resolver.timeout = _SERVER_S
        self._resolver.lifetime = _ALL_S

    def __call__(self, host: str, family: int) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        for version, kind in _KINDS.items():
            if family not in (version, socket.AF_UNSPEC):
                continue
            try:
                found += [(int(version), address) for address in self._addresses(host, kind)]
            except dns.resolver.NXDOMAIN as exc:
                raise socket.gaierror(socket.EAI_NONAME, str(exc)) from exc
            except dns.exception.DNSException as exc:
                _see_to_the_machine()
                # Some name servers answer nothing when they are asked for IPv6.
                if not found:
                    raise socket.gaierror(socket.EAI_AGAIN, str(exc)) from exc
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} has no address")
        return found

    def _addresses(self, host: str, kind: str) -> list[str]:
        answer = self._resolver.resolve(host, kind, raise_on_no_answer=False)
        return [record.address for record in answer.rrset or ()]


def _see_to_the_machine() -> None:
    # With no file left for the question, too, it is said that there is no such name, or that
    # nobody answers. Opening one here says so by an error of the machine's: no seller is to
    # blame for that.
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
