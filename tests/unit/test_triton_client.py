"""The client of the model server against a stand-in that speaks Triton's protocol."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import numpy as np
import pytest

from stream_judge.errors import BadOutputError, TritonTimeoutError, TritonUnavailableError
from stream_judge.serving.bundle import digest_of, pack_bundle
from stream_judge.testing_triton import SIZE, StubTriton
from stream_judge.triton import PolicyBundle, TritonJudge
from stream_judge.triton_options import TritonOptions

PIXELS = np.zeros((SIZE, SIZE, 3), np.uint8)


def bundle(instruction: str) -> PolicyBundle:
    data = pack_bundle(instruction, [], size=SIZE)
    return PolicyBundle(digest_of(data), data)


EXACT, LOOSE = bundle("All counts."), bundle("Only the colour counts.")


@pytest.fixture
async def stub() -> AsyncIterator[StubTriton]:
    server = StubTriton(
        score=lambda text: len(text) / 100,
        status=lambda text: "ok" if text else "text_empty",
        latency_s=lambda: 0.0,
    )
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(stub: StubTriton) -> AsyncIterator[TritonJudge]:
    judge = TritonJudge(
        TritonOptions(url=stub.url, batch_size=8, linger_s=0.05, timeout_s=5, max_requests=1)
    )
    await judge.start()
    yield judge
    await judge.close()


async def test_rows_of_many_callers_travel_in_full_requests(
    stub: StubTriton, client: TritonJudge
) -> None:
    await client.judge(PIXELS, "known", EXACT)
    stub.rows.clear()
    texts = ["x" * (i % 90) + "x" for i in range(24)]
    answers = await asyncio.gather(*(client.judge(PIXELS, text, EXACT) for text in texts))
    assert stub.rows == [8, 8, 8]
    assert [row.raw_score for row in answers] == pytest.approx([len(t) / 100 for t in texts])


async def test_a_bundle_is_told_once_and_again_after_a_restart(
    stub: StubTriton, client: TritonJudge
) -> None:
    rows = [
        client.judge(PIXELS, f"text {i}", policy) for i in range(3) for policy in (EXACT, LOOSE)
    ]
    assert {row.status for row in await asyncio.gather(*rows)} == {"ok"}
    # Refused, told in one row, and the rest: for each of the two policies.
    assert sorted(stub.rows) == [1, 1, 2, 2, 3, 3]
    stub.rows.clear()
    await client.judge(PIXELS, "again", EXACT)
    assert stub.rows == [1]
    await stub.stop()
    await stub.start()
    stub.rows.clear()
    async with asyncio.timeout(20):
        while True:  # the channel waits a moment before it connects again
            try:
                assert (await client.judge(PIXELS, "more", EXACT)).status == "ok"
                break
            except TritonUnavailableError:
                await asyncio.sleep(0.1)
    assert stub.rows == [1, 1]


async def test_a_row_that_cannot_be_judged_leaves_its_neighbours(client: TritonJudge) -> None:
    texts = ["good", "", "fine"]
    rows = await asyncio.gather(*(client.judge(PIXELS, text, EXACT) for text in texts))
    assert [row.status for row in rows] == ["ok", "text_empty", "ok"]
    assert math.isnan(rows[1].raw_score)


async def test_a_caller_that_gives_up_takes_its_row_back(
    stub: StubTriton, client: TritonJudge
) -> None:
    await client.judge(PIXELS, "known", EXACT)
    stub.rows.clear()
    leaving = asyncio.create_task(client.judge(PIXELS, "leaving", EXACT))
    staying = asyncio.create_task(client.judge(PIXELS, "staying", EXACT))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).status == "ok"
    assert stub.rows == [1]


async def test_an_outage_and_a_slow_answer_are_told_apart(stub: StubTriton) -> None:
    stub.out = True
    client = TritonJudge(TritonOptions(url=stub.url, timeout_s=0.2, linger_s=0))
    await client.start()
    with pytest.raises(TritonUnavailableError):
        await client.judge(PIXELS, "text", EXACT)
    assert not await client.ready()
    stub.out = False
    stub._latency_s = lambda: 3.0
    with pytest.raises(TritonTimeoutError):
        await client.judge(PIXELS, "text", EXACT)
    await client.close()


async def test_the_model_says_how_pictures_are_prepared(client: TritonJudge) -> None:
    spec = await client.spec()
    assert (spec.pixels.size, spec.picture_tokens, spec.max_batch_size) == (SIZE, 4, 32)


async def test_requests_keep_to_the_models_batch_size(
    stub: StubTriton, client: TritonJudge
) -> None:
    stub.max_batch_size = 3
    await client.judge(PIXELS, "known", EXACT)
    with pytest.raises(BadOutputError, match="batch size 8"):
        await asyncio.gather(*(client.judge(PIXELS, f"text {i}", EXACT) for i in range(8)))
    await client.spec()
    stub.rows.clear()
    await asyncio.gather(*(client.judge(PIXELS, f"text {i}", EXACT) for i in range(9)))
    assert stub.rows == [3, 3, 3]


async def test_pictures_of_another_size_are_refused(stub: StubTriton, client: TritonJudge) -> None:
    stub.parameters["image_size"] = str(2 * SIZE)
    assert (await client.spec()).pixels.size == 2 * SIZE
    with pytest.raises(BadOutputError, match="unexpected shape"):
        await client.judge(PIXELS, "text", EXACT)


async def test_a_policy_that_is_refused_is_told_once(stub: StubTriton, client: TritonJudge) -> None:
    stub._status = lambda _: "policy_too_long"
    rows = await asyncio.gather(*(client.judge(PIXELS, f"text {i}", EXACT) for i in range(5)))
    assert [row.status for row in rows] == ["policy_too_long"] * 5
    assert stub.rows == [5, 1]
