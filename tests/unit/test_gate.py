from __future__ import annotations

from typing import Any

import orjson
import pytest

from stream_judge.errors import DecodeError
from stream_judge.events import ProductUpdate
from stream_judge.testing import GateState, MemoryPublisher, make_record
from stream_judge.verdict import Findings, VerdictWriter


def headers(offset: int, partition: int = 0) -> dict[str, bytes | None]:
    return {
        "sj-source-partition": str(partition).encode(),
        "sj-source-offset": str(offset).encode(),
    }


def verdict(revision: int | str | None, decision: str = "publish") -> bytes:
    return orjson.dumps({"revision": revision, "decision": decision})


def found(state: GateState, revision: Any = None) -> str | None:
    kept = state.find("p", revision)
    return kept["decision"] if kept else None


def test_the_highest_revision_holds_in_whatever_order_they_come() -> None:
    state = GateState()
    state.apply(b"p", verdict(10, "block"), headers(0))
    assert state.apply(b"p", verdict(9, "publish"), headers(1)) is None
    assert found(state) == "block"
    assert state.apply(b"p", verdict(11, "review"), headers(2)) == "p"
    assert found(state) == "review"


def test_an_equal_revision_judged_again_replaces_the_first_but_not_the_other_way() -> None:
    state = GateState()
    state.apply(b"p", verdict(3, "block"), headers(4))
    state.apply(b"p", verdict(3, "publish"), headers(8))
    state.apply(b"p", verdict(3, "block"), headers(4))
    assert found(state) == "publish"


@pytest.mark.parametrize("kinds", [(None, None), (None, 7), ("b", 3)])
def test_without_comparable_revisions_the_source_offset_decides(kinds: tuple[Any, Any]) -> None:
    state = GateState()
    state.apply(b"p", verdict(kinds[0], "block"), headers(5))
    state.apply(b"p", verdict(kinds[1], "publish"), headers(4))
    assert found(state) == "block"
    state.apply(b"p", verdict(kinds[1], "publish"), headers(6))
    assert found(state) == "publish"


def test_an_earlier_revision_says_nothing_about_a_later_one() -> None:
    state = GateState()
    state.apply(b"p", verdict(3), headers(0))
    assert found(state, 3) == "publish"
    assert found(state, 2) == "publish"
    assert found(state, 4) is None
    assert state.find("q") is None


def test_a_tombstone_removes_and_an_older_verdict_does_not_bring_back() -> None:
    state = GateState()
    state.apply(b"p", verdict(3), headers(0))
    assert state.apply(b"p", None, headers(5)) == "p"
    assert found(state) is None
    assert len(state) == 0
    state.apply(b"p", verdict(2), headers(4))
    assert found(state) is None
    state.apply(b"p", verdict(4), headers(6))
    assert found(state) == "publish"
    assert len(state) == 1


def test_replays_count_only_where_they_are_asked_for() -> None:
    replayed = {**headers(9), "sj-replay": b"backfill"}
    plain, asking = GateState(), GateState(replays=True)
    for state in (plain, asking):
        state.apply(b"p", verdict(1, "block"), headers(0))
        state.apply(b"p", verdict(2, "publish"), replayed)
    assert (found(plain), found(asking)) == ("block", "publish")


@pytest.mark.parametrize("asked", ["3", 4, "2026-11-25"])
@pytest.mark.parametrize("known", [None, "2025-01-01-v3"])
def test_a_verdict_that_cannot_be_compared_holds_back_and_never_lets_through(
    known: str | None, asked: int | str
) -> None:
    if known is not None and isinstance(asked, str):
        asked = 3
    state = GateState()
    state.apply(b"p", verdict(known, "publish"), headers(0))
    assert found(state, asked) is None
    assert found(state) == "publish"
    state.apply(b"p", verdict(known, "review"), headers(1))
    assert found(state, asked) == "review"


def test_an_update_that_could_not_be_read_does_not_let_an_earlier_revision_return() -> None:
    state = GateState()
    state.apply(b"p", verdict(5, "publish"), headers(0))
    state.apply(b"p", verdict(None, "review"), headers(1))
    assert (found(state), found(state, 6)) == ("review", "review")
    state.apply(b"p", verdict(4, "publish"), headers(2))
    assert found(state) == "review"
    state.apply(b"p", verdict(6, "publish"), headers(3))
    assert found(state, 6) == "publish"


@pytest.mark.parametrize("value", [b"{", b"[]", b"{}", b'{"revision": 1, "decision": "maybe"}'])
def test_a_record_that_is_no_verdict_is_an_error(value: bytes) -> None:
    with pytest.raises(DecodeError, match="product p"):
        GateState().apply(b"p", value, headers(0))


async def test_a_gate_takes_in_what_a_publisher_published() -> None:
    publisher, state = MemoryPublisher(), GateState()
    record = make_record({})
    sent = VerdictWriter(source="/test", max_record_bytes=100_000).unjudgeable(
        record, Findings(update=ProductUpdate("p", 7, (), ())), "image_missing"
    )
    await publisher.publish([sent])
    for output in publisher.outcomes[0].outputs:
        state.apply(output.key, output.value, dict(output.headers))
    assert found(state, 7) == "review"
