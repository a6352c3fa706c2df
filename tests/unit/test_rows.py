from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream_judge.errors import BadOutputError, ConfigError, PolicyError
from stream_judge.images.spec import PixelSpec
from stream_judge.policy import Policy
from stream_judge.rows import Rows, together
from stream_judge.testing import MODEL, StubJudge, grey
from stream_judge.testing_triton import StubTriton
from stream_judge.triton import PolicyBundle, RowResult, TritonJudge
from stream_judge.triton_options import TritonOptions

Listing = Callable[..., Any]
PICTURES = [grey(), grey()]


class RollingJudge(StubJudge):
    """A server of several replicas: each row is answered by the model that is next.

    Args:
        digests: Of the models.
    """

    def __init__(self, digests: Iterator[str]) -> None:
        super().__init__()
        self._digests = digests

    async def judge(self, pixels: NDArray[np.uint8], text: str, bundle: PolicyBundle) -> RowResult:
        self.digest = next(self._digests)
        return await super().judge(pixels, text, bundle)


@pytest.fixture
def listing(make_judge: Any) -> Listing:
    """The rows and the policy of a judge around a client."""

    def make(client: StubJudge) -> tuple[Rows, Policy]:
        judge = make_judge(client=client)
        return judge._rows, judge._policies.policies[0]

    return make


async def test_a_listing_is_never_judged_by_two_models(listing: Listing) -> None:
    # Old and new, new and old, and then the rollout is over.
    client = RollingJudge(iter("abba" + "b" * 100))
    rows, policy = listing(client)
    found, _ = await rows.judge(PICTURES, "mug", policy)
    assert {row.model_digest for row in found} == {"b"}
    assert client.calls == 6


async def test_two_models_for_good_end_the_worker(listing: Listing) -> None:
    client = RollingJudge(iter("ab" * 100))
    rows, policy = listing(client)
    with pytest.raises(ConfigError, match=r"models a, b by turns"):
        await rows.judge(PICTURES, "mug", policy)
    assert client.calls == 20


async def test_the_model_that_answered_is_named(listing: Listing) -> None:
    client = StubJudge()
    rows, policy = listing(client)
    _, before = await rows.judge(PICTURES, "mug", policy)
    client.digest, client.model = "b", replace(MODEL, name="better", version="2")
    _, after = await rows.judge(PICTURES, "mug", policy)
    assert (before.version, after.name, after.version) == ("1", "better", "2")


async def test_pictures_of_an_old_preparation_are_judged_by_no_new_model(listing: Listing) -> None:
    client = StubJudge()
    rows, policy = listing(client)
    await rows.check(policy)
    client.digest, client.model = "b", replace(MODEL, pixels=PixelSpec(8, crop="none"))
    with pytest.raises(ConfigError, match="preparation changed"):
        await rows.judge(PICTURES, "mug", policy)


async def test_a_refusal_after_a_change_of_size_is_no_outage(listing: Listing) -> None:
    client = StubJudge(failures=[BadOutputError("unexpected shape")] * 2)
    client.model = replace(MODEL, pixels=PixelSpec(16))
    rows, policy = listing(client)
    with pytest.raises(ConfigError, match="preparation changed"):
        await rows.judge(PICTURES, "mug", policy)


async def test_a_server_with_a_model_of_another_size_ends_the_worker(make_judge: Any) -> None:
    stub = StubTriton()
    await stub.start()
    client = TritonJudge(TritonOptions(url=stub.url, linger_s=0))
    await client.start()
    judge = make_judge(client=client)
    await judge.check_policies()
    stub.parameters["image_size"] = "16"
    with pytest.raises(ConfigError, match=r"size=16.*size=8"):
        await judge._rows.judge(PICTURES, "mug", judge._policies.policies[0])
    await client.close()
    await stub.stop()


async def test_a_refusal_without_a_change_is_waited_out(listing: Listing) -> None:
    rows, policy = listing(StubJudge(failures=[BadOutputError("NaN")] * 3))
    found, _ = await rows.judge(PICTURES, "mug", policy)
    assert [row.status for row in found] == ["ok", "ok"]


async def test_a_policy_without_room_for_texts_is_the_policys_fault(listing: Listing) -> None:
    rows, policy = listing(StubJudge(status="policy_too_long"))
    with pytest.raises(PolicyError, match=r"policy exact: .* no room"):
        await rows.check(policy)
    with pytest.raises(PolicyError, match="no room"):
        await rows.judge(PICTURES, "mug", policy)


async def test_a_policy_that_the_server_cannot_read_is_told_with_what_to_do(
    listing: Listing,
) -> None:
    rows, policy = listing(StubJudge(status="policy_invalid"))
    with pytest.raises(PolicyError, match=r"policy exact: .* no visible character.* export again"):
        await rows.check(policy)


async def test_a_server_that_fails_sound_rows_is_no_policys_fault(listing: Listing) -> None:
    answers = iter(["internal", "internal", "ok"])
    client = StubJudge(status=lambda _: next(answers))
    rows, policy = listing(client)
    await rows.check(policy)
    assert client.calls == 3


async def test_the_first_failure_is_raised_and_the_others_end() -> None:
    ended: list[str] = []

    async def fail() -> str:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def wait() -> str:
        try:
            return await asyncio.Event().wait() and ""
        finally:
            await asyncio.sleep(0)
            ended.append("waited")

    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        await together([wait(), fail(), wait()])
    assert ended == ["waited", "waited"]
    assert asyncio.all_tasks() == before


async def test_results_come_in_the_order_of_the_calls() -> None:
    async def late(steps: int) -> int:
        for _ in range(steps):
            await asyncio.sleep(0)
        return steps

    assert await together(late(n) for n in (3, 1, 2)) == [3, 1, 2]


async def test_cancelling_the_caller_ends_all_calls() -> None:
    started = asyncio.Event()
    cancelled: list[int] = []

    async def wait(number: int) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    caller = asyncio.create_task(together(wait(n) for n in range(3)))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert sorted(cancelled) == [0, 1, 2]
