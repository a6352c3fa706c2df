"""What the embedded Triton does around its process; the process itself is an integration test."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stream_judge.embedded import triton
from stream_judge.embedded.triton import EmbeddedTriton
from stream_judge.errors import EnvironmentProblem


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where regions lie, with one of another server on port 8001."""
    folder = tmp_path / "shm"
    folder.mkdir()
    (folder / "sj_triton_8001_a").write_bytes(b"")
    monkeypatch.setattr(triton, "_SHARED_MEMORY", folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, on a machine where a server could be started."""
    (tmp_path / "manifest.json").write_text('{"files": {}}')
    monkeypatch.setattr(triton, "check_platform", lambda: None)
    monkeypatch.setattr(triton, "_make_backends", lambda folder: None)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path


def program(server: EmbeddedTriton, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run some Python in the place of Triton."""
    monkeypatch.setattr(server, "_command", lambda _: [sys.executable, "-c", code])
    monkeypatch.setattr(server, "_environment", dict)


async def test_a_start_that_failed_leaves_the_other_servers_memory(
    memory: Path, repository: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedTriton(repository, grpc_port=8001, http_port=taken.getsockname()[1])
        with pytest.raises(EnvironmentProblem, match="in use"):
            await server.start()
        await server.stop()
    assert [path.name for path in memory.iterdir()] == ["sj_triton_8001_a"]


async def test_weights_of_another_model_are_not_served(
    memory: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = repository / "m/1/model.onnx"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    digest = hashlib.sha256(b"Weights").hexdigest()
    manifest = {"files": {"m/1/model.onnx": digest}}
    (repository / "manifest.json").write_text(json.dumps(manifest))
    server = EmbeddedTriton(repository)
    program(server, monkeypatch, "raise SystemExit('Error: started')")
    with pytest.raises(EnvironmentProblem, match=r"m/1/model.onnx is not the file that manifest"):
        await server.start()
    weights.write_bytes(b"Weights")
    with pytest.raises(EnvironmentProblem, match="started"):
        await server.start()


async def test_an_edited_configuration_is_served_and_said(
    memory: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "m").mkdir()
    (repository / "m/config.pbtxt").write_text("edited")
    manifest = {"files": {"m/config.pbtxt": "0" * 64}}
    (repository / "manifest.json").write_text(json.dumps(manifest))
    lines: list[str] = []
    server = EmbeddedTriton(repository, on_line=lines.append)
    program(server, monkeypatch, "raise SystemExit('Error: started')")
    with pytest.raises(EnvironmentProblem, match="started"):
        await server.start()
    assert lines[0].startswith("m/config.pbtxt was edited since the export")


async def test_a_stop_is_heard_while_files_are_read(
    memory: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = threading.Event()
    heard = threading.Event()

    def slow(_: Path, *, is_stopped: Callable[[], bool]) -> tuple[str, ...]:
        reading.set()
        end = time.monotonic() + 10
        while not is_stopped() and time.monotonic() < end:
            time.sleep(0.01)
        if is_stopped():
            heard.set()
        return ()

    monkeypatch.setattr(triton, "check_files", slow)
    starting = asyncio.create_task(EmbeddedTriton(repository).start())
    assert await asyncio.to_thread(reading.wait, 30)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await asyncio.to_thread(heard.wait, 15)


async def test_backends_that_cannot_be_made_leave_no_folder(
    memory: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise EnvironmentProblem("not installed")

    monkeypatch.setattr(triton, "_make_backends", fail)
    with pytest.raises(EnvironmentProblem, match="not installed"):
        await EmbeddedTriton(repository).start()
    assert not list((repository / "scratch").iterdir())
    assert list(memory.iterdir())


async def test_a_stopped_server_takes_its_own_memory_along(
    memory: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedTriton(repository)
    region = memory / f"sj_triton_{server.grpc_url.split(':')[1]}_b"
    program(server, monkeypatch, f"open({str(region)!r}, 'w'); raise SystemExit('Error: no GPU')")
    with pytest.raises(EnvironmentProblem, match="no GPU"):
        await server.start(deadline_s=None)
    assert [path.name for path in memory.iterdir()] == ["sj_triton_8001_a"]
    assert not list((repository / "scratch").iterdir())


async def test_a_deadline_ends_a_server_that_loads_too_long(
    memory: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedTriton(repository)
    program(server, monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(EnvironmentProblem, match="not ready within 0 s"):
        await server.start(deadline_s=0.1)


async def test_a_start_that_is_cancelled_leaves_no_process(
    memory: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedTriton(repository)
    program(server, monkeypatch, "print('loading', flush=True); import time; time.sleep(60)")
    loading = asyncio.Event()
    monkeypatch.setattr(server, "_on_line", lambda _: loading.set())
    starting = asyncio.create_task(server.start(deadline_s=None))
    async with asyncio.timeout(30):
        await loading.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert await server.wait() != 0
    assert not list((repository / "scratch").iterdir())
