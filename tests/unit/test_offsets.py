from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)

from stream_judge import offsets
from stream_judge.errors import OffsetError
from stream_judge.offsets import Committed, GroupOffsets, metadata_of, start_offsets
from stream_judge.offsets import _committed as committed_in
from stream_judge.settings import KafkaSettings

A, B = ("t", 0), ("t", 1)
RANGES = {A: (10, 50), B: (0, 20)}


def test_a_new_group_begins_at_what_is_there() -> None:
    assert start_offsets({}, RANGES, 1, None) == {A: 10, B: 0}


def test_committed_offsets_are_taken_up() -> None:
    known = {A: Committed(50, 4), B: Committed(7, 4)}
    assert start_offsets(known, RANGES, 9, None) == {A: 50, B: 7}


def test_what_a_peer_has_just_committed_does_not_make_the_group_an_old_one() -> None:
    assert start_offsets({A: Committed(12, 1)}, {B: RANGES[B]}, 1, None) == {B: 0}


def test_what_a_static_member_committed_before_its_restart_makes_the_group_an_old_one() -> None:
    with pytest.raises(OffsetError, match="t/1: no offset is committed"):
        start_offsets({A: Committed(12, 1)}, RANGES, 1, None)


@pytest.mark.parametrize(
    ("known", "says"),
    [
        ({A: Committed(12, 1)}, "t/1: no offset is committed"),
        ({A: Committed(12, -1)}, "t/1: no offset is committed"),
        ({A: Committed(12, 2), B: Committed(21, 2)}, "offset 21 is committed, the log has 0 to 20"),
        ({A: Committed(9, 2), B: Committed(1, 2)}, "t/0: offset 9 is committed"),
    ],
)
def test_lost_offsets_stop_the_worker_until_an_operator_decides(
    known: dict[tuple[str, int], Committed], says: str
) -> None:
    with pytest.raises(OffsetError, match=says):
        start_offsets(known, RANGES, 2, None)
    decided = start_offsets(known, RANGES, 2, "earliest")
    assert decided[B] in (0, 1)
    assert start_offsets(known, RANGES, 2, "latest")[B] in (1, 20)


@pytest.mark.parametrize(
    "text",
    ["", None, "host-7", "sj-generation=", "sj-generation=x", "7;first", "sj-generation=;lane=a"],
)
def test_metadata_of_others_names_no_generation(text: str | None) -> None:
    assert committed_in(3, text) == Committed(3, -1)


@pytest.mark.parametrize("first", [False, True])
def test_metadata_is_read_back(first: bool) -> None:
    assert committed_in(3, metadata_of(17, "ab", first=first)) == Committed(3, 17, first, "ab")


def test_what_an_earlier_version_committed_is_no_lanes() -> None:
    assert committed_in(3, "sj-generation=17;first") == Committed(3, 17, first=True)


def test_a_first_start_that_was_cut_off_can_be_repeated() -> None:
    begun = {A: Committed(10, 4, first=True)}
    assert start_offsets(begun, RANGES, 5, None) == {A: 10, B: 0}
    # What its peers committed meanwhile does not matter, nor what a static member did itself.
    assert start_offsets(begun, RANGES, 4, None) == {A: 10, B: 0}


def test_with_one_outcome_the_group_is_no_new_one() -> None:
    known = {A: Committed(10, 4, first=True), ("t", 2): Committed(3, 4)}
    with pytest.raises(OffsetError, match="t/1: no offset is committed"):
        start_offsets(known, RANGES, 5, None)


def test_a_first_start_that_the_log_has_lost_since_is_for_the_operator() -> None:
    with pytest.raises(OffsetError, match="offset 9 is committed, the log has 10 to 50"):
        start_offsets({A: Committed(9, 4, first=True)}, RANGES, 5, None)


class Coordinator:
    """Stands for the administrative client: gives answers, the last one again and again."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def find_coordinator(self, group: str) -> int:
        return 3

    async def _send_request(self, request: Any, node: int) -> Any:
        assert node == 3
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def answer(*rows: tuple[int, int, str, int], error: int = 0) -> Any:
    return SimpleNamespace(error_code=error, topics=[("t", list(rows))] if rows else [])


async def committed_at(coordinator: Coordinator) -> dict[tuple[str, int], Committed]:
    group = GroupOffsets(KafkaSettings(topic="t"))
    group._admin = coordinator
    return await group.committed()


@pytest.mark.parametrize(
    "unready", [GroupLoadInProgressError.errno, NotCoordinatorForGroupError.errno]
)
async def test_a_coordinator_that_is_not_ready_is_no_group_without_offsets(
    unready: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offsets, "_AGAIN_S", 0.0)
    whole = answer((0, 12, "", 0), (1, -1, "", 0))
    coordinator = Coordinator(answer(error=unready), answer((0, -1, "", unready)), whole)
    assert await committed_at(coordinator) == {A: Committed(12, -1)}
    assert coordinator.asked == 3


async def test_a_group_that_may_not_be_read_is_no_group_without_offsets() -> None:
    with pytest.raises(GroupAuthorizationFailedError):
        await committed_at(Coordinator(answer(error=GroupAuthorizationFailedError.errno)))
