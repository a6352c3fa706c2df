from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import numpy as np
import pytest

from stream_judge.embedded.triton import EmbeddedTriton
from stream_judge.errors import EnvironmentProblem, TritonUnavailableError
from stream_judge.resources import resource
from stream_judge.serving.bundle import Sample, digest_of, pack_bundle
from stream_judge.serving.manifest import manifest_digest
from stream_judge.triton import PolicyBundle, TritonJudge
from stream_judge.triton_options import TritonOptions
from tests.certificates import client_files, make_certificates

PIXELS = np.random.default_rng(1).integers(0, 256, (32, 64, 64, 3)).astype(np.uint8)


def bundle(instruction: str, samples: int = 0) -> PolicyBundle:
    shown = [Sample(PIXELS[i], f"red mug {i}", i % 2 == 0) for i in range(samples)]
    data = pack_bundle(instruction, shown, size=64)
    return PolicyBundle(digest_of(data), data)


@pytest.fixture
async def judge(triton: EmbeddedTriton):  # type: ignore[no-untyped-def]
    client = TritonJudge(TritonOptions(url=triton.grpc_url, linger_s=0.02))
    await client.start()
    yield client
    await client.close()


async def test_one_server_serves_it_all(judge: TritonJudge) -> None:
    spec = await judge.spec()
    assert spec.pixels.size == 64

    texts = [f"{'striped ' * (i % 9)}blue bag {i}" for i in range(32)]
    texts[4], texts[9] = "\u200b", "<image></s>"
    policy = bundle("Only the colour counts.", samples=2)
    together = await asyncio.gather(*(judge.judge(PIXELS[i], texts[i], policy) for i in range(32)))
    assert [row.status for row in together] == ["ok"] * 4 + ["text_empty"] + ["ok"] * 27
    assert {row.model_digest for row in together} == {manifest_digest(resource("model_repo"))}
    for i in (0, 7, 31):
        alone = await judge.judge(PIXELS[i], texts[i], policy)
        assert alone.raw_score == pytest.approx(together[i].raw_score, abs=1e-4)

    broken = PolicyBundle("0" * 64, b"nonsense")
    assert (await judge.judge(PIXELS[0], "x", broken)).status == "policy_invalid"


class GuardedTriton(EmbeddedTriton):
    """Asks for certificates, with the flags that docs/security.md names.

    Args:
        folder: With those of server and client.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(resource("model_repo"))
        self._folder = folder

    def _command(self, backends: Path) -> list[str]:
        files = {"server-cert": "server.pem", "server-key": "server-key.pem"}
        files["root-cert"] = "client.pem"
        return [
            *super()._command(backends),
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            *(f"--grpc-{flag}={self._folder / file}" for flag, file in files.items()),
        ]


async def test_a_server_with_mutual_tls_talks_to_our_certificate_alone(tmp_path: Path) -> None:
    make_certificates(tmp_path, "server", "client", "other")
    server = GuardedTriton(tmp_path)
    await server.start()
    try:
        for name in ("client", "other"):
            files = client_files(tmp_path, name)
            client = TritonJudge(TritonOptions(url=server.grpc_url, timeout_s=5, tls=True, **files))
            await client.start()
            if name == "client":
                assert (await client.spec()).pixels.size == 64
            else:
                with pytest.raises(TritonUnavailableError):
                    await client.spec()
            await client.close()
    finally:
        await server.stop()


async def test_a_server_that_is_gone_is_an_outage() -> None:
    server = EmbeddedTriton(resource("model_repo"))
    await server.start()
    client = TritonJudge(TritonOptions(url=server.grpc_url, timeout_s=2))
    await client.start()
    await server.stop()
    with pytest.raises(TritonUnavailableError):
        await client.judge(PIXELS[0], "x", bundle("Judge."))
    assert not list(Path("/dev/shm").glob(f"sj_triton_{server.grpc_url.split(':')[1]}*"))
    await client.close()


async def test_a_repository_that_does_not_load_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": {}}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.pbtxt").write_text("nonsense")
    with pytest.raises(EnvironmentProblem, match="did not start"):
        await EmbeddedTriton(tmp_path).start()


@pytest.mark.parametrize("name", ["grpc", "http", "metrics"])
async def test_a_port_in_use_is_said_at_once(name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = EmbeddedTriton(resource("model_repo"), **{f"{name}_port": port})
        with pytest.raises(EnvironmentProblem, match=f"port {port} is in use.*--{name}-port"):
            await server.start()
