from __future__ import annotations

from typing import Any

import orjson
import pytest

from stream_judge.gate import GateState


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
