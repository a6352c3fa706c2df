"""What the tests need: said loudly where it is missing, and an error in CI."""

from __future__ import annotations

import importlib.util
import os

# Its plugin imports it when the session ends, where Python 3.11.7 can fail to compile it.
import hypothesis  # noqa: F401
import pytest

from stream_judge.embedded.triton import check_platform
from stream_judge.errors import EnvironmentProblem


def missing_parts() -> list[str]:
    """What is missing on this machine, a sentence each."""
    parts = []
    if importlib.util.find_spec("torch") is None:
        parts.append("torch is missing: export and training cannot be tested")
    try:
        check_platform()
    except EnvironmentProblem as exc:
        parts.append(f"the embedded servers do not run here: {exc.message}")
    return parts


def pytest_sessionstart() -> None:
    parts = missing_parts()
    if parts and os.environ.get("CI") == "true":
        raise pytest.UsageError("CI must run every test: " + "; ".join(parts))


def pytest_report_header() -> list[str]:
    return [f"SKIPPING SOME TESTS: {part}" for part in missing_parts()]
