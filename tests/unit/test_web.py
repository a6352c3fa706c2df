"""The worker's pages, asked over a socket."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from stream_judge.errors import EnvironmentProblem
from stream_judge.metrics import Metrics
from stream_judge.settings import WebSettings
from stream_judge.web import serve_pages


class Bench:
    """Pages of a worker that is what a test says."""

    def __init__(self) -> None:
        self.why: str | None = None
        self.metrics = Metrics()
        self.port = 0

    def refresh(self) -> None:
        self.metrics.oldest_in_flight.set(7)

    async def get(self, path: str) -> tuple[int, str, str]:
        """Status, content type, body."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
        ):
            return answer.status, answer.headers["Content-Type"], await answer.text()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    settings = WebSettings(port=0)
    async with serve_pages(settings, bench.metrics, lambda: bench.why, bench.refresh) as port:
        bench.port = port
        yield bench


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_readiness_comes_and_goes_and_says_why(bench: Bench) -> None:
    plain = "text/plain; charset=utf-8"
    bench.why = "starting"
    assert await bench.get("/readyz") == (503, plain, "starting\n")
    bench.why = None
    assert await bench.get("/readyz") == (200, plain, "ready\n")
    bench.why = "stalled: t/0/7 for 150 s"
    assert await bench.get("/readyz") == (503, plain, "stalled: t/0/7 for 150 s\n")


async def test_an_unready_worker_is_alive(bench: Bench) -> None:
    bench.why = "fatal: 70"
    assert await bench.get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")


async def test_metrics_are_fresh_and_of_the_type_that_prometheus_reads(bench: Bench) -> None:
    status, content_type, body = await bench.get("/metrics")
    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    assert "version=" in content_type
    assert "\nstream_judge_oldest_in_flight_seconds 7.0\n" in body


async def test_there_is_no_other_page(bench: Bench) -> None:
    assert [(await bench.get(path))[0] for path in ("/", "/readyz/more", "/metrics/")] == [404] * 3


async def test_the_port_is_free_again_afterwards() -> None:
    settings = WebSettings(port=0)
    async with serve_pages(settings, Metrics(), lambda: None, lambda: None) as port:
        pass
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_a_port_in_use_says_which_and_what_to_set(taken: int) -> None:
    says = f"port {taken} of 127.0.0.1 is in use; set web.port or web.bind"
    with pytest.raises(EnvironmentProblem) as problem:
        async with serve_pages(WebSettings(port=taken), Metrics(), lambda: None, lambda: None):
            pass
    assert problem.value.message == says


async def test_an_address_of_another_machine_says_so() -> None:
    # 192.0.2.0/24 is for documentation: no machine has it.
    settings = WebSettings(bind="192.0.2.1", port=0)
    with pytest.raises(EnvironmentProblem, match=r"of 192\.0\.2\.1 \(.+\); set web.port or"):
        async with serve_pages(settings, Metrics(), lambda: None, lambda: None):
            pass


def test_a_worker_whose_port_is_in_use_ends_with_2(taken: int) -> None:
    command = [sys.executable, "-m", "stream_judge", "worker", "--set", f"web.port={taken}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        f"stream-judge: environment: port {taken} of 127.0.0.1 is in use; set web.port or web.bind"
    )
