"""The demo as a person types it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "stream_judge", "demo", "--json"]
# What stands in the environment of a demo, and of all that it starts.
MARK = "SJ_TEST_RUN"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(tmp_path), MARK: uuid.uuid4().hex}


def strays(environment: dict[str, str]) -> list[str]:
    """Command lines of what a demo has started and is still there, seconds after its end."""
    end = time.monotonic() + 10
    # What is killed with its starter takes a moment to be gone.
    while (found := _running(environment)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _running(environment: dict[str, str]) -> list[str]:
    mark = f"{MARK}={environment[MARK]}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        # Somebody else's, or gone meanwhile.
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
    return found


def shared_memory() -> set[Path]:
    return set(Path("/dev/shm").glob("sj_triton_*"))


def test_the_demo_delivers_everything_and_leaves_nothing(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    run = subprocess.run(
        [*COMMAND, "--events", "100", "--seed", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    summary = json.loads(run.stdout.splitlines()[-1])
    assert (summary["events"], summary["lost"]) == (100, 0)
    assert (summary["duplicates"], summary["order_breaks"]) == (0, 0)
    assert (summary["unjudgeable"], summary["dead_letters"], summary["tombstones"]) == (4, 3, 1)
    assert (summary["expected"], summary["unexpected"]) == (100, [])
    assert summary["accuracy"] >= ACCURACY
    assert (tmp_path / "demo-report.html").stat().st_size > 50_000
    assert strays(environment) == []


@pytest.mark.parametrize(
    ("mark", "then_s"),
    [("", 0.3), ("drawing", 0.0), ("starting", 0.0), ("starting", 2.0), ("ready", 0.7)],
    ids=["start", "drawing", "starting", "half started", "judging"],
)
def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, environment: dict[str, str], mark: str, then_s: float
) -> None:
    before = shared_memory()
    with subprocess.Popen(
        [*COMMAND, "--events", "60"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
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
    assert strays(environment) == []
    assert shared_memory() <= before
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
