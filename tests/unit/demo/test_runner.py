from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from stream_judge.demo import runner
from stream_judge.demo.runner import DemoOptions, Progress, run_demo
from stream_judge.embedded import triton
from stream_judge.errors import EnvironmentProblem, ImageUrlError, StreamJudgeError
from stream_judge.images.guard import AddressGuard
from stream_judge.images.options import ImageOptions


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(EnvironmentProblem) as problem:
        asyncio.run(run_demo(DemoOptions(), Progress(), say=lambda _: None))
    return problem.value.message


def test_too_little_disk_is_said_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton, "check_platform", lambda: None)
    monkeypatch.setattr("stream_judge.demo.runner.check_platform", lambda: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=12_000_000))
    assert "12 MB free, the demo needs 500" in run(tmp_path, monkeypatch)


def test_another_platform_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert "runs on Linux x86-64, not on darwin" in run(tmp_path, monkeypatch)


def test_a_report_that_cannot_be_written_is_said_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "check_platform", lambda: None)
    monkeypatch.setattr(runner, "make_catalogue", lambda *_: pytest.fail("drawn"))
    options = DemoOptions(report=tmp_path)
    with pytest.raises(EnvironmentProblem, match="Is a directory"):
        asyncio.run(run_demo(options, Progress(), say=lambda _: None))


def test_a_run_that_fails_leaves_no_empty_report_and_an_old_one_as_it_was(tmp_path: Path) -> None:
    runner._check_report(tmp_path / "made" / "new.html")
    assert list((tmp_path / "made").iterdir()) == []
    old = tmp_path / "old.html"
    old.write_text("figures")
    runner._check_report(old)
    assert old.read_text() == "figures"


class Part:
    """Something that runs for ever, or ends with a code."""

    def __init__(self, code: int | None = None) -> None:
        self.code = code

    async def wait(self) -> int:
        if self.code is None:
            await asyncio.Event().wait()
        return self.code or 0


async def never(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


def judge_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **running: Part) -> str:
    monkeypatch.setattr(runner, "feed", never)
    monkeypatch.setattr(runner, "read_back", never)
    (tmp_path / "events.jsonl").write_text('{"key": "p-1", "value": null}\n')
    (tmp_path / "worker.log").write_text("first\nthe reason\n")
    parts = runner._Parts("127.0.0.1:1", "http://127.0.0.1:1", None, running)  # type: ignore[arg-type]
    with pytest.raises(StreamJudgeError) as problem:
        asyncio.run(runner._judge_all(parts, tmp_path, Progress()))
    return problem.value.message


def test_a_part_that_ends_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = judge_all(tmp_path, monkeypatch, **{"the broker": Part(), "Triton": Part(9)})
    assert said == "Triton ended with exit code 9; --keep keeps the logs"


def test_a_worker_that_ends_has_its_last_line_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = judge_all(tmp_path, monkeypatch, **{"the worker": Part(75)})
    assert "ended with exit code 75; its log ends with: the reason" in said


def test_a_feeder_that_waits_for_ever_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_STALL_S", 0.2)
    said = judge_all(tmp_path, monkeypatch, **{"Triton": Part()})
    assert "0 of 1 updates have an outcome" in said


def test_no_listing_of_the_demo_reaches_the_parts_on_loopback() -> None:
    found = runner._worker_environment("127.0.0.1:1", "127.0.0.1:2", 3, 4)
    prefix = "STREAM_JUDGE_IMAGES__"
    images = {
        name.removeprefix(prefix).lower(): json.loads(value)
        for name, value in found.items()
        if name.startswith(prefix)
    }
    options = ImageOptions.model_validate(images)
    guard = AddressGuard(options.allowed_hosts, options.allowed_networks, options.allowed_ports)
    assert guard.parse("http://127.0.0.1:4/a.png").port == 4
    for port in (2, 3):
        with pytest.raises(ImageUrlError, match=f"port {port}"):
            guard.parse(f"http://127.0.0.1:{port}/v2/models")
