from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from stream_judge.embedded.machine import check_machine
from stream_judge.errors import EnvironmentProblem

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine as the server needs it, whatever this one is."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.35"))


@pytest.mark.usefixtures("fitting")
def test_a_fitting_machine_is_not_refused() -> None:
    check_machine()


@pytest.mark.usefixtures("fitting")
@pytest.mark.parametrize(
    ("module", "name", "value", "said"),
    [
        (sys, "platform", "darwin", "on Linux x86-64, not on darwin"),
        (platform, "machine", lambda: "aarch64", "on Linux x86-64, not on linux aarch64"),
        (sys, "version_info", (3, 13, 0), "needs Python 3.11 or 3.12"),
        (sys, "version_info", (3, 10, 9), "needs Python 3.11 or 3.12"),
        (platform, "libc_ver", lambda: ("glibc", "2.31"), "glibc 2.35 or newer, not glibc 2.31"),
        (platform, "libc_ver", lambda: ("", ""), "glibc 2.35 or newer, not another libc"),
    ],
)
def test_a_machine_without_a_server_is_refused(
    module: object, name: str, value: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, value)
    with pytest.raises(EnvironmentProblem, match=said):
        check_machine()


def test_it_is_one_line_where_no_package_is_installed() -> None:
    code = (
        "import platform, runpy; platform.machine = lambda: 'riscv64'; "
        "runpy.run_module('stream_judge.embedded.machine', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("stream-judge: environment: the embedded Triton runs on Linux")
