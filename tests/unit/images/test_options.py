from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream_judge.images.guard import AddressGuard
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
