"""The client of the model server over TLS, against a stand-in with certificates of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from stream_judge import triton
from stream_judge.errors import ConfigError, TritonUnavailableError
from stream_judge.testing_triton import SIZE, StubTriton, _Service
from stream_judge.triton import TritonJudge
from stream_judge.triton_options import TritonOptions
from tests.certificates import client_files, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of server, client and other."""
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder, "server", "client", "other")
    return folder


class GuardedTriton(StubTriton):
    """Speaks TLS, and asks for the client's certificate.

    Args:
        folder: With the certificates.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def start(self) -> None:
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Service(self), self._server)
        pair = ((self._folder / "server-key.pem"), (self._folder / "server.pem"))
        credentials = grpc.ssl_server_credentials(
            [tuple(path.read_bytes() for path in pair)],
            root_certificates=(self._folder / "client.pem").read_bytes(),
            require_client_auth=True,
        )
        self.url = f"127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', credentials)}"
        await self._server.start()


@pytest.fixture
async def guarded(certificates: Path) -> AsyncIterator[GuardedTriton]:
    server = GuardedTriton(certificates)
    await server.start()
    yield server
    await server.stop()


def account(folder: Path, name: str, *, authority: str = "server") -> dict[str, Any]:
    """Settings of a client with a certificate."""
    return {"tls": True, **client_files(folder, name, authority)}


async def side(server: StubTriton, **options: Any) -> int:
    """The size of pictures that the server asks for."""
    client = TritonJudge(TritonOptions(url=server.url, timeout_s=5, **options))
    await client.start()
    try:
        return (await client.spec()).pixels.size
    finally:
        await client.close()


async def test_a_server_that_asks_for_a_certificate_gets_ours(
    guarded: GuardedTriton, certificates: Path
) -> None:
    assert await side(guarded, **account(certificates, "client")) == SIZE


async def test_a_server_does_not_talk_to_strangers_nor_we_to_a_stranger(
    guarded: GuardedTriton, certificates: Path
) -> None:
    nobody = {"tls": True, "ca_file": certificates / "server.pem"}
    wrong_authority = account(certificates, "client", authority="other")
    for options in ({}, nobody, account(certificates, "other"), wrong_authority):
        with pytest.raises(TritonUnavailableError, match=r"; check triton\.tls"):
            await side(guarded, **options)


async def test_a_server_without_tls_is_told_from_one_that_is_away(certificates: Path) -> None:
    server = StubTriton()
    await server.start()
    options = {"tls": True, "ca_file": certificates / "server.pem"}
    with pytest.raises(TritonUnavailableError, match=r"; check triton\.tls"):
        await side(server, **options)
    await server.stop()
    with pytest.raises(TritonUnavailableError) as away:
        await side(server, **options)
    assert "triton.tls" not in away.value.message


async def test_without_tls_nothing_of_it_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(
        triton.tritonclient, "InferenceServerClient", lambda url, **options: given.append(options)
    )
    await TritonJudge(TritonOptions()).start()
    await TritonJudge(TritonOptions(tls=True)).start()
    assert [set(options) for options in given] == [
        {"channel_args"},
        {"channel_args", "ssl", "root_certificates", "certificate_chain", "private_key"},
    ]
    assert given[1]["ssl"] is True


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ca_file": "none.pem"}, r"triton\.ca_file .*none\.pem: .*No such file"),
        ({"ca_file": "text.pem"}, r"triton\.ca_file .*text\.pem: "),
        ({"key_file": "other-key.pem"}, r"triton\.key_file .*other-key\.pem: .*MISMATCH"),
        ({"cert_file": "none.pem"}, r"triton\.cert_file .*none\.pem, .*No such file"),
    ],
)
async def test_a_file_that_cannot_serve_is_said_at_the_start(
    certificates: Path, change: dict[str, str], said: str
) -> None:
    (certificates / "text.pem").write_text("no certificate")
    files = {name: certificates / file for name, file in change.items()}
    options = TritonOptions(**account(certificates, "client") | files)
    with pytest.raises(ConfigError, match=said):
        await TritonJudge(options).start()
