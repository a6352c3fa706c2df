"""Real servers for the integration tests: mock broker, Triton with the shipped model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stream_judge.embedded.triton import EmbeddedTriton, check_platform
from stream_judge.errors import EnvironmentProblem
from stream_judge.resources import resource
from tests.background import BackgroundLoop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        check_platform()
    except EnvironmentProblem as exc:
        for item in items:
            if "integration" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=exc.message))


@pytest.fixture(scope="session")
def triton() -> Iterator[EmbeddedTriton]:
    """One for all tests that leave it as it is; it runs in a loop of its own."""
    server = EmbeddedTriton(resource("model_repo"))
    with BackgroundLoop() as background:
        background.run(server.start())
        yield server
        background.run(server.stop())
