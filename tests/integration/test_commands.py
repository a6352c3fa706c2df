"""Commands that run a server in the foreground, as a person types and stops them."""

from __future__ import annotations

import asyncio
import re
import sys
import urllib.request
from pathlib import Path

from stream_judge.processes import ChildProcess
from stream_judge.triton import TritonJudge
from stream_judge.triton_options import TritonOptions

_PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")


async def test_triton_says_where_it_serves_and_ends_on_sigterm() -> None:
    said: list[str] = []
    command = [sys.executable, "-m", "stream_judge", "triton", *_PORTS]
    server = ChildProcess(command, env=None, on_line=said.append)
    await server.start()
    try:
        async with asyncio.timeout(90):
            while not (ready := [line for line in said if "triton_ready" in line]):
                assert server.exit_code is None, said
                await asyncio.sleep(0.1)
        # Time and level first, as every line of ours has them; then the event's own fields.
        stamp = r"\d{4}-\d\d-\d\dT[\d:.]+Z \[info *\] "
        found = re.match(rf"{stamp}triton_ready +grpc=(\S+) metrics=(\S+)$", ready[0])
        assert found is not None, ready[0]
        # What Triton itself says passes through as a field of a line of ours.
        assert any(re.match(rf"{stamp}triton +line=.*Started GRPC", line) for line in said)
        assert all(re.match(stamp, line) for line in said), said
        grpc_url, metrics_url = found.groups()
        client = TritonJudge(TritonOptions(url=grpc_url))
        await client.start()
        assert (await client.spec()).name == "tiny-llava-re"
        await client.close()
        with urllib.request.urlopen(metrics_url, timeout=5) as answer:
            assert b"nv_inference_count" in answer.read()
    finally:
        await server.stop(grace_s=40)
    assert server.exit_code == 0, said[-5:]
    assert not list(Path("/dev/shm").glob(f"sj_triton_{grpc_url.split(':')[1]}*"))
