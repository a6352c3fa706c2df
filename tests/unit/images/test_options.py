from __future__ import annotations

import pytest
from pydantic import ValidationError
from yarl import URL

from stream_judge.errors import ImageBlockedError, ImageUrlError
from stream_judge.images.guard import AddressGuard, host_of
from stream_judge.images.options import ImageOptions

WRONG = (
    "minio.internal:9000",
    "https://minio.internal",
    "minio.internal/bucket",
    "user@minio.internal",
    "*.internal",
    " minio.internal",
    "caf\u00e9.example",
    "[::1]:9000",
    "",
)


@pytest.mark.parametrize("name", ["own_hosts", "allowed_hosts"])
@pytest.mark.parametrize("host", WRONG)
def test_a_host_that_no_url_could_have_is_refused(name: str, host: str) -> None:
    with pytest.raises(ValidationError, match="without scheme, port, path or wildcard"):
        ImageOptions.model_validate({name: [host]})


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("MinIO.internal", "http://minio.internal:9000/a.jpg"),
        ("object_store", "http://object_store:9000/a.jpg"),
        ("store.internal.", "http://store.internal:9000/a.jpg"),
        ("Store.internal.", "http://store.INTERNAL.:9000/a.jpg"),
        ("10.1.2.3", "http://10.1.2.3:9000/a.jpg"),
        ("::1", "http://[::1]:9000/a.jpg"),
        ("[::1]", "http://[::1]:9000/a.jpg"),
        ("FD00:0::1", "http://[fd00::1]:9000/a.jpg"),
    ],
)
def test_a_host_that_is_taken_opens_its_ports(host: str, url: str) -> None:
    options = ImageOptions(allowed_hosts=frozenset({host}))
    guard = AddressGuard(options.allowed_hosts, (), options.allowed_ports)
    assert guard.parse(url).port == 9000


def test_an_own_host_with_a_dot_at_its_end_is_that_of_urls_with_and_without_it() -> None:
    options = ImageOptions(own_hosts=frozenset({"Store.internal."}))
    for url in ("http://store.internal/a.jpg", "http://STORE.internal./a.jpg"):
        assert host_of(URL(url)) in options.own_hosts


def test_a_dot_that_only_the_url_has_makes_another_host_of_it() -> None:
    # Without the dot a cluster's resolver completes it; with the dot it is a name on the
    # Internet, and whoever has that could point it anywhere.
    options = ImageOptions(allowed_hosts=frozenset({"minio.media"}))
    guard = AddressGuard(options.allowed_hosts, (), options.allowed_ports)
    guard.resolved("minio.media", ["10.0.0.9"])
    with pytest.raises(ImageBlockedError):
        guard.resolved("minio.media.", ["10.0.0.9"])
    with pytest.raises(ImageUrlError, match="port 9000"):
        guard.parse("http://minio.media.:9000/a.jpg")


@pytest.mark.parametrize(
    ("given", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        ("192.0.2.1:5353", "192.0.2.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
    ],
)
def test_a_name_server_is_written_as_people_do(given: str, address: str, port: int) -> None:
    (found,) = ImageOptions.model_validate({"name_servers": [given]}).name_servers
    assert (str(found.address), found.port, str(found)) == (address, port, given)


@pytest.mark.parametrize(
    "given",
    ["", "dns.example", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:", "1.2.3", "1:2", ":53"],
)
def test_a_name_server_that_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="no address of a name server"):
        ImageOptions.model_validate({"name_servers": [given]})
