from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from stream_judge.demo.runner import DemoOptions, Progress, run_demo
from stream_judge.embedded import triton
from stream_judge.errors import EnvironmentProblem


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
