"""Real servers for the integration tests: mock broker, Triton with the shipped model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stream_judge.embedded.triton import EmbeddedTriton, check_platform
from stream_judge.errors import EnvironmentProblem
from stream_judge.resources import resource


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        check_platform()
    except EnvironmentProblem as exc:
        for item in items:
            if "integration" in str(item.path):
                item.add_marker(pytest.mark.skip(reason=exc.message))


@pytest.fixture
async def triton() -> AsyncIterator[EmbeddedTriton]:
    server = EmbeddedTriton(resource("model_repo"))
    await server.start()
    yield server
    await server.stop()
