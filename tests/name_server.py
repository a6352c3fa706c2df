"""A name server on loopback, which tests tell what to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Self

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameServer:
    """Answers by UDP: names of one zone lead to some addresses, no other name leads anywhere.

    Args:
        zone: With a dot at its end.
        addresses: Where its names lead, IPv4 and IPv6.
        silent: Names of it about which nothing is said.

    Attributes:
        port: Where it is on 127.0.0.1; 0 before `start`.
        out: What it does to every question: "" answers, "fails" says that it cannot tell, and
            "silent" says nothing.
        asked: Names that were asked for, once for each kind of address.
    """

    def __init__(self, zone: str, addresses: Collection[str], silent: Collection[str] = ()) -> None:
        self._zone = zone
        self._addresses = addresses
        self._silent = silent
        self._transport: asyncio.DatagramTransport | None = None
        self.port = 0
        self.out = ""
        self.asked: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Within it, it answers."""
        await self.start()
        try:
            yield self
        finally:
            self.stop()

    async def start(self) -> None:
        """Listen on a free port."""
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Protocol(self), local_addr=("127.0.0.1", 0)
        )
        self.port = int(self._transport.get_extra_info("sockname")[1])

    def stop(self) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.close()

    def answer(self, wire: bytes) -> bytes | None:
        """What is said to a question; None: nothing."""
        asked = dns.message.from_wire(wire)
        question = asked.question[0]
        name = question.name.to_text()
        self.asked.append(name)
        if self.out == "silent" or name in self._silent:
            return None
        response = dns.message.make_response(asked, recursion_available=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        found = [a for a in self._addresses if (":" in a) == (kind == "AAAA")]
        if self.out == "fails":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif not name.endswith(self._zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif found:
            response.answer.append(dns.rrset.from_text_list(name, 0, "IN", kind, found))
        return response.to_wire()


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if (answer := self._server.answer(data)) is not None:
            self._transport.sendto(answer, addr)
