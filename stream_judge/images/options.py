"""What pictures may cost, and where they may come from."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from pydantic import BaseModel, ConfigDict, Field

#: Characters of a URL; a longer one is no picture of a listing.
MAX_URL = 4_096


class ImageOptions(BaseModel):
    """Fetching and decoding of pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowed_hosts: frozenset[str] = Field(
        frozenset(),
        description="Hosts that may also be reached on non-public addresses and other ports "
        "(a private object store).",
    )
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="Non-public networks whose addresses may be reached."
    )
    allowed_ports: frozenset[int] = Field(
        frozenset({80, 443}), description="Ports that URLs of other hosts may name."
    )
    own_hosts: frozenset[str] = Field(
        frozenset(),
        description="Hosts of the operator's own picture store: while one of them is out, "
        "records wait for it.",
    )
    resolver_canary: str | None = Field(
        None,
        pattern=r"^([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?$",
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
    max_connections_per_host: int = Field(8, ge=1, description="The same, for one host.")
    decoders: int = Field(2, ge=1, le=64, description="Child processes that decode.")
    decode_timeout_s: float = Field(5.0, gt=0, description="For one picture, seconds.")
    decoder_memory_bytes: int = Field(
        1_000_000_000, ge=200_000_000, description="Address space of a decoder, bytes."
    )
    decoder_pictures: int = Field(
        2_000, ge=1, description="Pictures after which a decoder is replaced."
    )
