from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from stream_judge.errors import ConfigError, TritonUnavailableError
from stream_judge.images.spec import PixelSpec
from stream_judge.served_model import ServedModel
from stream_judge.testing import MODEL
from stream_judge.triton import ModelSpec


class Server:
    """Answers what its model is, and knows how often it was asked."""

    def __init__(self) -> None:
        self.model = MODEL
        self.reads = 0
        self.out = False
        self.seconds = 0.0

    async def read(self) -> ModelSpec:
        self.reads += 1
        await asyncio.sleep(0)
        if self.out:
            raise TritonUnavailableError("out")
        return self.model


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def served(server: Server) -> ServedModel:
    return ServedModel(MODEL, server.read, clock=lambda: server.seconds)


async def test_a_model_that_stays_is_read_once(server: Server, served: ServedModel) -> None:
    for _ in range(5):
        await served.notice("a")
    assert server.reads == 1
    assert served.spec_of("a") == MODEL


async def test_another_model_of_the_same_preparation_is_taken_up(
    server: Server, served: ServedModel
) -> None:
    await served.notice("a")
    server.model = replace(MODEL, name="better", version="2", max_batch_size=7)
    await served.notice("b")
    assert (served.spec_of("b").name, served.spec_of("b").version) == ("better", "2")
    assert served.spec_of("a") == MODEL


@pytest.mark.parametrize(
    "pixels", [PixelSpec(16), PixelSpec(8, crop="none"), PixelSpec(8, resample="lanczos")]
)
async def test_a_model_that_wants_other_pictures_ends_the_worker(
    server: Server, served: ServedModel, pixels: PixelSpec
) -> None:
    await served.notice("a")
    server.model = replace(MODEL, pixels=pixels)
    await served.notice("a")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"preparation changed.*restart"):
            await served.notice("b")
    with pytest.raises(ConfigError, match="preparation changed"):
        await served.read_again()


async def test_while_two_models_answer_by_turns_each_change_is_looked_at(
    server: Server, served: ServedModel
) -> None:
    for digest in "abab":
        await served.notice(digest)
    assert server.reads == 4


async def test_it_is_read_once_more_when_a_rollout_is_over(
    server: Server, served: ServedModel
) -> None:
    # The row came from a new server, the specification from one that still had the old model.
    await served.notice("a")
    server.model = replace(MODEL, version="2")
    for seconds in (30.0, 61.0, 200.0):
        server.seconds = seconds
        await served.notice("a")
    assert served.spec_of("a").version == "2"
    assert server.reads == 2


async def test_many_callers_at_once_read_once(server: Server, served: ServedModel) -> None:
    await asyncio.gather(*(served.notice("a") for _ in range(20)))
    # The first, and one for those whose news are younger than it.
    assert server.reads <= 2


async def test_a_read_that_fails_is_repeated(server: Server, served: ServedModel) -> None:
    server.out = True
    with pytest.raises(TritonUnavailableError):
        await served.notice("a")
    server.out = False
    server.model = replace(MODEL, version="2")
    await served.notice("a")
    assert served.spec_of("a").version == "2"
