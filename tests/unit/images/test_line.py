from __future__ import annotations

import asyncio
from contextlib import ExitStack

from stream_judge.images.line import Line, Place


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Served:
    """Takes turns for one byte each until it is told to go on; notes who had one."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.may_go_on = asyncio.Event()

    def begin(self, place: Place, name: str) -> asyncio.Task[None]:
        async def serve() -> None:
            async with place.turn(1):
                self.names.append(name)
                await self.may_go_on.wait()

        return asyncio.create_task(serve())


async def test_a_picture_that_came_late_goes_before_those_that_were_begun_after_it() -> None:
    line, served = Line(1, 100), Served()
    with line.place() as first, line.place() as slow, line.place() as b, line.place() as c:
        tasks = [served.begin(first, "first"), served.begin(c, "c"), served.begin(b, "b")]
        await settle()
        tasks.append(served.begin(slow, "slow"))
        await settle()
        assert served.names == ["first"]
        served.may_go_on.set()
        await asyncio.gather(*tasks)
    assert served.names == ["first", "slow", "b", "c"]


async def test_turns_are_bounded() -> None:
    line, served = Line(2, 100), Served()
    with line.place() as a, line.place() as b, line.place() as c:
        tasks = [served.begin(place, "x") for place in (a, b, c)]
        await settle()
        assert len(served.names) == 2
        served.may_go_on.set()
        await asyncio.gather(*tasks)


async def test_whoever_gives_up_as_it_is_given_a_turn_hands_it_on() -> None:
    line, served = Line(1, 100), Served()
    served.may_go_on.set()
    with line.place() as a, line.place() as b, line.place() as c, line.place() as d:
        async with a.turn(1):
            given, early, last = (served.begin(place, "x") for place in (b, c, d))
            await settle()
            early.cancel()
            await settle()
        given.cancel()
        await asyncio.wait({given, early, last})
        assert served.names == ["x"]
        # None of them has taken a turn with it.
        await served.begin(a, "again")
    assert last.exception() is None


async def test_nothing_more_is_begun_while_too_much_waits_but_for_the_first() -> None:
    line, served = Line(1, 2), Served()
    with line.place() as first, line.place() as a, line.place() as b, line.place() as later:
        assert later.has_room()
        tasks = [served.begin(a, "a"), served.begin(b, "b")]
        await settle()
        assert first.has_room()
        assert not later.has_room()
        room = asyncio.create_task(later.room())
        await settle()
        assert not room.done()
        served.may_go_on.set()
        await asyncio.gather(room, *tasks)
        assert later.has_room()


async def test_whoever_has_become_the_first_has_room() -> None:
    line, served = Line(1, 1), Served()
    with ExitStack() as stack:
        first = stack.enter_context(line.place())
        with line.place() as next_one, line.place() as holder:
            holding = served.begin(holder, "holder")
            await settle()
            assert first.has_room()
            room = asyncio.create_task(next_one.room())
            await settle()
            assert not room.done()
            stack.close()
            await room
            served.may_go_on.set()
            await holding
