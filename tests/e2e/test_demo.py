"""The demo as a person types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "stream_judge", "demo", "--json"]


def strays() -> list[str]:
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    marks = ("tritonserver ", "stream_judge.embedded", "catalogue.server", "stream_judge worker")
    return [line for line in found.stdout.splitlines() if any(mark in line for mark in marks)]


def test_the_demo_delivers_everything_and_leaves_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        [*COMMAND, "--events", "100", "--seed", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout.splitlines()[-1])
    assert (summary["events"], summary["lost"]) == (100, 0)
    assert (summary["duplicates"], summary["order_breaks"]) == (0, 0)
    assert (summary["unjudgeable"], summary["dead_letters"], summary["tombstones"]) == (4, 3, 1)
    assert summary["accuracy"] >= ACCURACY
    assert (tmp_path / "demo-report.html").stat().st_size > 50_000
    assert strays() == []


@pytest.mark.parametrize(
    ("mark", "then_s"),
    [("", 0.3), ("drawing", 0.0), ("starting", 0.0), ("starting", 2.0), ("ready", 0.7)],
    ids=["start", "drawing", "starting", "half started", "judging"],
)
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, mark: str, then_s: float) -> None:
    before = set(os.listdir("/dev/shm"))
    with subprocess.Popen(
        [*COMMAND, "--events", "300"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        # Whoever runs the tests in the background has SIGINT ignored, and children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as run:
        assert run.stderr is not None
        if mark:
            for line in run.stderr:
                if line.startswith(mark):
                    break
        time.sleep(then_s)
        run.send_signal(signal.SIGINT)
        run.stderr.read()
        # Before the program has its handlers, Python itself ends by the signal.
        assert run.wait(timeout=60) in ((130,) if mark else (130, -signal.SIGINT))
    assert strays() == []
    assert set(os.listdir("/dev/shm")) <= before
    # Not every file: ONNX Runtime may leave one of its own in the temporary folder.
    assert list(tmp_path.glob("stream-judge-*")) == []


def test_a_missing_model_is_said_in_one_line(tmp_path: Path) -> None:
    run = subprocess.run(
        [*COMMAND, "--events", "1", "--repository", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 2
    assert "no model repository" in run.stderr.splitlines()[-1]


# What the shipped model reaches on such samples, less what another sample may cost.
ACCURACY = 0.88
