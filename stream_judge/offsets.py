"""Committed offsets of the worker's group, and where a partition is to begin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest

from stream_judge.connection import close_apart, open_admin, open_consumer
from stream_judge.errors import OffsetError, StreamJudgeError
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings

_AGAIN_S = 0.1
_MARK = "sj-generation="
_FIRST, _LANE = "first", "lane="
# A topic's name, and partition, offset, metadata and error of each partition.
_TopicOffsets = tuple[str, list[tuple[int, int, str, int]]]


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed offset.

    Attributes:
        offset: The next one to be judged.
        generation: Of the assignment that committed it; -1 where somebody else did.
        first: Whether it is where a new group begins: nothing has been judged up to it.
        lane: Token of the lane that committed it. The generation does not tell lanes apart: a
            static member's stays when another process takes its name.
    """

    offset: int
    generation: int
    first: bool = False
    lane: str = ""


def metadata_of(generation: int, lane: str, *, first: bool = False) -> str:
    """What is stored beside an offset that a lane commits; see `Committed`."""
    return f"{_MARK}{generation};{_LANE}{lane}" + (f";{_FIRST}" if first else "")


class GroupOffsets:
    """Asks the broker about the worker's own group; a client of its own.

    Args:
        settings: Broker, group, source topic.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin: Any = None
        self._reader: Any = None

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: No broker answers.
        """
        self._admin = await open_admin(self._settings)
        try:
            self._reader = await open_consumer(self._settings)
        except StreamJudgeError:
            await self._admin.close()
            raise

    async def stop(self) -> None:
        """Disconnect."""
        await close_apart(self._admin.close())
        await close_apart(self._reader.stop())

    async def committed(self) -> dict[Partition, Committed]:
        """Every offset that the group has committed for the source topic.

        It waits for a coordinator that is being made or moved: give it a deadline.

        Raises:
            KafkaError: The broker does not tell.
        """
        while True:
            try:
                answer = await self._ask()
                break
            except KafkaError as exc:
                if not exc.retriable:
                    raise
            await asyncio.sleep(_AGAIN_S)
        return {
            (topic, partition): _committed(offset, metadata)
            for topic, found in answer
            for partition, offset, metadata, _ in found
            if topic == self._settings.topic and offset >= 0
        }

    async def _ask(self) -> list[_TopicOffsets]:
        # Not `list_consumer_group_offsets`: that overlooks the answer's error, and so takes a
        # coordinator that is still loading for a group that has committed nothing.
        group = self._settings.application
        coordinator = await self._admin.find_coordinator(group)
        request = OffsetFetchRequest(group, None)
        answer = await self._admin._send_request(request, coordinator)
        errors = [answer.error_code, *(row[3] for _, found in answer.topics for row in found)]
        for code in filter(None, errors):
            raise for_code(code)(f"offsets of group {group}")
        topics: list[_TopicOffsets] = answer.topics
        return topics

    async def ranges(self, partitions: Collection[Partition]) -> dict[Partition, tuple[int, int]]:
        """First offset that is there, and the one behind the last, of each partition.

        It waits for a leader that is new: give it a deadline.

        Raises:
            KafkaError: The broker does not tell.
        """
        places = [TopicPartition(*partition) for partition in partitions]
        first = await ask_log(self._reader.beginning_offsets, places)
        last = await ask_log(self._reader.end_offsets, places)
        return {(tp.topic, tp.partition): (first[tp], last[tp]) for tp in places}


async def ask_log(
    ask: Callable[[Sequence[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]],
    places: Sequence[TopicPartition],
) -> Mapping[TopicPartition, int]:
    """Where logs begin or end, by one of a consumer's methods; give it a deadline.

    A new leader answers OFFSET_NOT_AVAILABLE until it knows (KIP-207). aiokafka does not know
    that code, and takes it for a refusal.
    """
    while True:
        try:
            return await ask(places)
        except UnknownError:
            await asyncio.sleep(_AGAIN_S)


def start_offsets(
    committed: Mapping[Partition, Committed],
    ranges: Mapping[Partition, tuple[int, int]],
    generation: int,
    on_missing: str | None,
) -> dict[Partition, int]:
    """Where each partition of an assignment begins.

    A group that commits for the first time begins at what is there, also where a first start
    was cut off between the commits of two partitions. In a group that has committed outcomes, a
    partition without an offset, or with one that the log does not have, means that records were
    lost or would be judged again: an operator has to decide.

    Args:
        committed: All of the group's offsets for the topic.
        ranges: Of the assigned partitions.
        generation: Of the assignment. What its other members just committed in it does not
            make the group an old one. A static member comes back into the generation that it
            left: what it committed itself does.
        on_missing: "earliest" or "latest" where the operator has decided.

    Raises:
        OffsetError: A partition has no usable offset, and nobody has decided.
    """
    known = any(
        not found.first and (found.generation != generation or partition in ranges)
        for partition, found in committed.items()
    )
    result = {}
    for partition, (first, last) in ranges.items():
        found = committed.get(partition)
        if found is not None and first <= found.offset <= last:
            result[partition] = found.offset
        elif on_missing is not None:
            result[partition] = first if on_missing == "earliest" else last
        elif found is None and not known:
            result[partition] = first
        else:
            raise OffsetError(_problem(partition, found, first, last))
    return result


def _problem(partition: Partition, found: Committed | None, first: int, last: int) -> str:
    topic, number = partition
    says = "no offset is committed, but others of the group are"
    if found is not None:
        says = f"offset {found.offset} is committed, the log has {first} to {last}"
    return (
        f"{topic}/{number}: {says}; decide with kafka.on_missing_offset: earliest judges all that "
        "is there, latest what comes from now on"
    )


def _committed(offset: int, metadata: str | None) -> Committed:
    mark, *fields = (metadata or "").split(";")
    number = mark.removeprefix(_MARK)
    if not mark.startswith(_MARK) or not number.isdigit():
        return Committed(offset, -1)
    lanes = [field.removeprefix(_LANE) for field in fields if field.startswith(_LANE)]
    return Committed(offset, int(number), _FIRST in fields, "".join(lanes))
