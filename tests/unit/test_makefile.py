"""What `make` would do on a fresh machine; nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKE = shutil.which("make")
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which nothing was made yet, with an empty `bin`."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    for name in ("pyproject.toml", "requirements/demo.txt", "requirements/dev.txt"):
        (tmp_path / name).touch()
    (tmp_path / "bin").mkdir()
    return tmp_path


def python(checkout: Path, name: str, code: int) -> None:
    """A Python on the path that ends with this code."""
    program = checkout / "bin" / name
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)


def would_run(checkout: Path, target: str) -> subprocess.CompletedProcess[str]:
    assert MAKE is not None
    return subprocess.run(
        [MAKE, "-n", target],
        cwd=checkout,
        env={"PATH": str(checkout / "bin")},
        capture_output=True,
        text=True,
    )


def test_the_demo_looks_at_the_machine_before_it_installs(checkout: Path) -> None:
    python(checkout, "python3.11", 0)
    python(checkout, "python3.12", 0)
    lines = would_run(checkout, "demo").stdout.splitlines()
    assert lines[0] == "python3.11 -m stream_judge.embedded.machine"
    assert lines[1] == "python3.11 -m venv .cache/uv"
    assert lines[-1] == ".venv/bin/stream-judge demo"


def test_python_312_is_taken_where_311_does_not_run(checkout: Path) -> None:
    python(checkout, "python3.11", 127)
    python(checkout, "python3.12", 0)
    assert would_run(checkout, "test").stdout.startswith("python3.12 -m venv .cache/uv\n")


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_machine_without_python_is_told_so(checkout: Path, target: str) -> None:
    done = would_run(checkout, target)
    assert done.returncode == 2
    assert "needs Python 3.11 or 3.12" in done.stderr
    assert done.stdout == ""


def test_the_rest_needs_no_python(checkout: Path) -> None:
    assert would_run(checkout, "clean").returncode == 0
