from __future__ import annotations

from typing import Any

from stream_judge.source import SourceThread


class Consumer:
    """Seeks as aiokafka does: to committed offsets above 0."""

    def __init__(self) -> None:
        self.sought: dict[str, int | str] = {}

    async def seek_to_committed(self) -> dict[str, int | None]:
        committed = {"far": 7, "start": 0, "new": None}
        self.sought |= {tp: offset for tp, offset in committed.items() if offset}
        return committed

    def seek(self, tp: str, offset: int) -> None:
        self.sought[tp] = offset

    async def seek_to_beginning(self, tp: str) -> None:
        self.sought[tp] = "beginning"


async def test_every_partition_is_read_again_from_its_commit_also_from_0() -> None:
    consumer = Consumer()

    class Thread(SourceThread):
        def __init__(self) -> None:
            pass

        def _ensure_consumer(self) -> Any:
            return consumer

    committed = await Thread()._seek_to_committed()
    assert committed == {"far": 7, "start": 0, "new": None}
    assert consumer.sought == {"far": 7, "start": 0, "new": "beginning"}
