"""The client of the model server against a stand-in that speaks Triton's protocol."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from stream_judge.errors import BadOutputError, TritonTimeoutError, TritonUnavailableError
from stream_judge.serving.bundle import digest_of, pack_bundle
from stream_judge.testing_triton import SIZE, StubTriton
from stream_judge.triton import _CHANNEL, PolicyBundle, RowResult, TritonJudge
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
    stub.out = False
    stub._latency_s = lambda: 3.0
    with pytest.raises(TritonTimeoutError):
        await client.judge(PIXELS, "text", EXACT)
    await client.close()


async def test_the_model_says_how_pictures_are_prepared(client: TritonJudge) -> None:
    spec = await client.spec()
    assert (spec.name, spec.pixels.size, spec.max_batch_size) == ("stub", SIZE, 32)


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


def test_a_host_that_vanished_is_left_within_seconds() -> None:
    options = dict(_CHANNEL)
    deadline_ms = TritonOptions().timeout_s * 1000
    assert options["grpc.keepalive_timeout_ms"] < deadline_ms < options["grpc.keepalive_time_ms"]


class NoRoom(StubTriton):
    """Fails to compute a policy's prefix, so that it never knows one."""

    def _row_status(self, text: str, policy: bytes) -> str:
        return "policy_unknown" if len(policy) == 64 else "internal"


class Forgetful(StubTriton):
    """Forgets a policy as soon as it was told."""

    def _row_status(self, text: str, policy: bytes) -> str:
        return "policy_unknown" if len(policy) == 64 else "ok"


class Instances(StubTriton):
    """Nine behind one address, which take requests in turn."""

    def __init__(self) -> None:
        super().__init__()
        self._each: list[set[bytes]] = [set() for _ in range(9)]

    async def infer(self, request: Any) -> Any:
        self._known = self._each[len(self.rows) % len(self._each)]
        return await super().infer(request)


async def ask(server: StubTriton, n: int) -> list[RowResult | BaseException]:
    await server.start()
    client = TritonJudge(TritonOptions(url=server.url, batch_size=n, timeout_s=5))
    await client.start()
    rows = (client.judge(PIXELS, f"text {i}", EXACT) for i in range(n))
    answers = await asyncio.gather(*rows, return_exceptions=True)
    await client.close()
    await server.stop()
    return answers


async def test_a_server_that_fails_at_a_policy_is_not_told_to_remember_it() -> None:
    answers = await ask(NoRoom(), 6)
    assert [isinstance(answer, RowResult) for answer in answers] == [True] * 3 + [False] * 3
    for answer in answers[3:]:
        assert isinstance(answer, BadOutputError)
        assert "cannot take policy" in answer.message
        assert "answers internal" in answer.message


async def test_a_server_that_forgets_a_policy_needs_a_larger_cache() -> None:
    answers = await ask(Forgetful(), 12)
    assert isinstance(answers[-1], BadOutputError)
    assert "more room" in answers[-1].message


async def test_every_instance_behind_an_address_is_told() -> None:
    server = Instances()
    answers = await ask(server, 8)
    assert {answer.status for answer in answers if isinstance(answer, RowResult)} == {"ok"}
    assert len(answers) == 8
    # Five have been told when one of them is asked.
    assert server.rows == [8, 1, 7, 1, 6, 1, 5, 1, 4, 1, 3]


class Held(TritonJudge):
    """A client whose requests end when they are let go."""

    def __init__(self) -> None:
        super().__init__(TritonOptions(batch_size=4, linger_s=0, max_requests=1))
        self.sent: list[list[str]] = []
        self.let_go = asyncio.Event()
        self.tasks: list[asyncio.Task[RowResult]] = []

    async def _infer(self, rows: Sequence[Any], policies: list[bytes]) -> list[RowResult]:
        self.sent.append([row.text for row in rows])
        await self.let_go.wait()
        return [RowResult("ok", 0.5, 1.0, 1, 0, "digest")] * len(rows)

    async def ask(self, text: str, policy: PolicyBundle = EXACT) -> asyncio.Task[RowResult]:
        """A row that has lingered."""
        self.tasks.append(asyncio.create_task(self.judge(PIXELS, text, policy)))
        for _ in range(5):
            await asyncio.sleep(0)
        return self.tasks[-1]


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    client = Held()
    yield client
    await client.close()
    await asyncio.gather(*client.tasks, return_exceptions=True)


async def test_a_group_takes_in_rows_until_a_request_may_leave(held: Held) -> None:
    for i in range(8):
        await held.ask(str(i))
    assert held.sent == [["0"]]
    held.let_go.set()
    await asyncio.gather(*held.tasks)
    # Full at the fourth row; what came then lingered for the next.
    assert held.sent == [["0"], ["1", "2", "3", "4"], ["5", "6", "7"]]


async def test_policies_get_their_turn_in_the_order_of_their_rows(held: Held) -> None:
    for text, policy in (("0", EXACT), ("1", LOOSE), ("2", EXACT), ("3", LOOSE), ("4", EXACT)):
        await held.ask(text, policy)
    held.let_go.set()
    await asyncio.gather(*held.tasks)
    assert held.sent == [["0"], ["1", "3"], ["2", "4"]]


async def test_a_row_that_is_taken_back_takes_no_place(held: Held) -> None:
    await held.ask("0")
    gone = [await held.ask(f"gone {i}") for i in range(3)]
    for task in gone:
        task.cancel()
    for i in range(1, 5):
        await held.ask(str(i))
    held.let_go.set()
    await asyncio.gather(*held.tasks, return_exceptions=True)
    assert held.sent == [["0"], ["1", "2", "3", "4"]]


async def test_a_group_whose_callers_have_all_gone_is_no_request(held: Held) -> None:
    await held.ask("0")
    (await held.ask("gone")).cancel()
    held.let_go.set()
    await held.ask("1", LOOSE)
    assert held.sent == [["0"], ["1"]]


async def test_closing_ends_every_row_wherever_it_waits(held: Held) -> None:
    for i in range(3):
        await held.ask(str(i))
    # These fill the group; a sender of theirs has not begun to run.
    held.tasks += [
        asyncio.create_task(held.judge(PIXELS, str(i), policy))
        for policy in (LOOSE, EXACT)
        for i in range(5)
    ]
    await asyncio.sleep(0)
    await held.close()
    ends = await asyncio.wait_for(asyncio.gather(*held.tasks, return_exceptions=True), 5)
    assert {type(end) for end in ends} == {TritonUnavailableError}
    assert held.sent == [["0"]]
