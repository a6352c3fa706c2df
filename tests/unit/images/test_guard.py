from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from stream_judge.errors import ImageBlockedError, ImageUrlError
from stream_judge.images.guard import AddressGuard, is_public

NOT_PUBLIC = tuple(
    """
    0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 172.31.255.255
    192.0.0.8 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.2 203.0.113.3 224.0.0.1 239.1.1.1
    240.0.0.1 255.255.255.255 168.63.129.16 100.100.100.200 :: ::1 ::ffff:127.0.0.1
    ::ffff:10.0.0.1 ::ffff:0:127.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1
    64:ff9b:1::a9fe:a9fe 2002:7f00:1:: 2002:a9fe:a9fe::1 2001:0:7f00:1:: 2001:db8::1 3fff::1
    5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 100::1 2600::5efe:a00:1
    """.split()  # noqa: SIM905 - a list of strings would be forty lines
)
PUBLIC = tuple(
    """
    1.1.1.1 8.8.8.8 93.184.216.34 2606:4700::1111 2a00:1450::1 64:ff9b::808:808
    """.split()  # noqa: SIM905 - a list of strings would be forty lines
)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.fixture
def guard() -> AddressGuard:
    return AddressGuard(["store.internal"], [ip_network("10.5.0.0/16")], [80, 443])


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "file:///etc/passwd",
        "ftp://a/b",
        "gopher://a/",
        "http://",
        "http://u:p@a.example/",
        "http://a.example:22/",
        "http://a.example:99999/",
        "https:///x",
        "javascript:alert(1)",
        "http://a\nb/",
    ],
)
def test_what_may_not_be_fetched_is_refused_before_any_packet(
    guard: AddressGuard, url: str
) -> None:
    with pytest.raises(ImageUrlError):
        guard.parse(url)


def test_an_allowed_host_opens_its_ports_and_a_network_none(guard: AddressGuard) -> None:
    assert guard.parse("http://store.internal:9000/x").port == 9000
    assert guard.parse("http://10.5.0.1/x").port == 80
    for host in ("10.5.0.1", "10.6.0.1"):
        with pytest.raises(ImageUrlError, match="port 9000"):
            guard.parse(f"http://{host}:9000/x")


@pytest.mark.parametrize(
    "host", ["a..b", ".com", "a" * 64 + ".example", "a." * 127 + "bc", ".", "a.example.."]
)
def test_a_host_that_no_resolver_could_be_asked_for_is_no_url(
    guard: AddressGuard, host: str
) -> None:
    with pytest.raises(ImageUrlError, match="no name and no address"):
        guard.parse(f"http://{host}/x")


@pytest.mark.parametrize(
    "host", ["a.example.", "a_b.example", "a" * 63 + ".example", "a." * 126 + "b", "[2606:4700::1]"]
)
def test_a_host_that_a_resolver_can_be_asked_for_is(guard: AddressGuard, host: str) -> None:
    assert guard.parse(f"http://{host}/x").raw_path == "/x"


def test_what_cannot_be_printed_is_said_of_the_url(guard: AddressGuard) -> None:
    with pytest.raises(ImageUrlError, match="the URL has characters"):
        guard.parse("http://a.example/x\u200b.png")


def test_every_answer_of_a_resolver_must_be_allowed(guard: AddressGuard) -> None:
    guard.resolved("a.example", ["1.1.1.1"])
    guard.resolved("store.internal", ["192.168.0.9"])
    with pytest.raises(ImageBlockedError):
        guard.resolved("a.example", ["1.1.1.1", "127.0.0.1"])


def test_the_socket_itself_is_refused(guard: AddressGuard) -> None:
    import socket

    make = guard.socket_factory()
    with pytest.raises(ImageBlockedError):
        make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    make((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.5.1.1", 80))).close()
