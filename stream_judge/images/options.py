"""What pictures may cost, and where they may come from."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

#: Characters of a URL; a longer one is no picture of a listing.
MAX_URL = 4_096
_NAME = r"^([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?$"


def _host(given: str) -> str:
    """A host in the form in which URLs' hosts are compared with it."""
    if re.fullmatch(_NAME, given):
        return given.lower()
    try:
        return IPv6Address(given.removeprefix("[").removesuffix("]")).compressed
    except ValueError:
        raise ValueError(
            f"{given!r} is no host: write it alone, without scheme, port, path or wildcard, "
            "such as store.internal"
        ) from None


def _in_both_forms(given: frozenset[str]) -> frozenset[str]:
    """Names with a dot at their end, also as most URLs write them.

    Not the other way round: `minio.media` without a dot may be a name inside a cluster, which
    the resolver completes, and `minio.media.` anybody's who registers it.
    """
    return given | {host.removesuffix(".") for host in given}


@dataclass(frozen=True, slots=True)
class NameServer:
    """Where a name server answers, by UDP and TCP.

    Attributes:
        address: Its address.
        port: Its port.
    """

    address: IPv4Address | IPv6Address
    port: int = 53

    def __str__(self) -> str:
        if self.port == 53:
            return str(self.address)
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


def _name_server(given: Any) -> Any:
    """A name server as people write it: an address, or one with a port."""
    if not isinstance(given, str):
        return given
    with contextlib.suppress(ValueError):
        return NameServer(ip_address(given))
    host, _, port = given.rpartition(":")
    with contextlib.suppress(ValueError):
        address = ip_address(host.removeprefix("[").removesuffix("]"))
        if re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65_536:
            return NameServer(address, int(port))
    raise ValueError(
        f"{given!r} is no address of a name server: write it as 192.0.2.1, 192.0.2.1:5353, "
        "2001:db8::1 or [2001:db8::1]:5353"
    )


NameServers = tuple[Annotated[NameServer, BeforeValidator(_name_server), PlainSerializer(str)], ...]
Hosts = Annotated[frozenset[Annotated[str, AfterValidator(_host)]], AfterValidator(_in_both_forms)]


class ImageOptions(BaseModel):
    """Fetching and decoding of pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowed_hosts: Hosts = Field(
        frozenset(),
        description="Hosts, by name or address, whose URLs may also lead to non-public addresses "
        "and name any port (a private object store).",
    )
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (),
        description="Non-public networks whose addresses may be reached, by any URL, on "
        "allowed_ports.",
    )
    allowed_ports: frozenset[int] = Field(
        frozenset({80, 443}),
        description="Ports that URLs may name, but for those of allowed_hosts.",
    )
    own_hosts: Hosts = Field(
        frozenset(),
        description="Hosts of the operator's own picture store, at the ports 80, 443 and those of "
        "allowed_ports: while one of them is out, records wait for it.",
    )
    name_servers: NameServers = Field(
        (),
        description="Addresses (and :port) of name servers that are asked in place of the "
        "system's resolver, in this order; the hosts file and search domains count no more.",
    )
    resolver_canary: str | None = Field(
        None,
        pattern=_NAME,
        description="A name that always resolves: while it does not, the resolver is out, and "
        "records wait for it.",
    )
    max_bytes: int = Field(20_000_000, ge=1_000, description="Largest picture file, bytes.")
    max_pixels: int = Field(
        25_000_000, ge=1_000, le=400_000_000, description="Largest picture, width times height."
    )
    max_redirects: int = Field(3, ge=0, le=10, description="Redirects that are followed.")
    connect_timeout_s: float = Field(3.0, gt=0, description="Until connected, seconds.")
    read_timeout_s: float = Field(5.0, gt=0, description="Between two reads, seconds.")
    total_timeout_s: float = Field(10.0, gt=0, description="One attempt in all, seconds.")
    attempts: int = Field(3, ge=1, le=10, description="Attempts at a picture.")
    backoff_s: float = Field(
        0.25, ge=0, description="Wait before the second attempt, doubled each time, seconds."
    )
    max_connections: int = Field(64, ge=1, description="Downloads at the same time.")
    max_waiting_bytes: int = Field(
        200_000_000,
        ge=1,
        description="Bytes of downloaded pictures that wait for a decoder, from which on no other "
        "download begins; those under way add max_connections times max_bytes at most.",
    )
    max_connections_per_host: int = Field(
        8, ge=1, description="Downloads from one host at the same time."
    )
    decoders: int = Field(2, ge=1, le=64, description="Child processes that decode.")
    decode_timeout_s: float = Field(5.0, gt=0, description="For one picture, seconds.")
    decoder_memory_bytes: int = Field(
        1_000_000_000, ge=200_000_000, description="Address space of a decoder, bytes."
    )
    decoder_pictures: int = Field(
        2_000, ge=1, description="Pictures after which a decoder is replaced."
    )

    @model_validator(mode="after")
    def _connects_in_time(self) -> Self:
        # The default does no harm above a total that somebody lowers; one that was set would
        # do nothing, and whoever set it believes that it does.
        connect_s, total_s = self.connect_timeout_s, self.total_timeout_s
        if "connect_timeout_s" in self.model_fields_set and connect_s > total_s:
            raise ValueError(
                f"connect_timeout_s {connect_s:g} is above total_timeout_s {total_s:g}, which ends "
                "the attempt first; lower the one or raise the other"
            )
        return self
