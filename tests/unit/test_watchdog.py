from __future__ import annotations

import re
import threading

import pytest
from structlog.testing import capture_logs

from stream_judge import exits, watchdog
from stream_judge.errors import StalledError
from stream_judge.watchdog import Watchdog


class Bench:
    def __init__(self) -> None:
        self.progress = 0
        self.busy = True
        self.outage = False
        self.stuck: str | None = None
        self.stalls: list[StalledError] = []
        self.deaths: list[int] = []
        self.dog = Watchdog(
            10.0,
            progress=lambda: self.progress,
            busy=lambda: self.busy,
            outage=lambda: self.outage,
            on_stall=self.stalls.append,
            stuck=lambda: self.stuck,
            die=self.deaths.append,
        )


def test_work_without_progress_makes_unready_then_ends() -> None:
    bench = Bench()
    for _ in range(4):
        assert not bench.dog.tick(1.0)
    assert bench.dog.stalled is None
    bench.dog.tick(1.0)
    assert bench.dog.stalled == "nothing read for 5 s"
    for _ in range(4):
        assert not bench.dog.tick(1.0)
    assert bench.dog.tick(1.0)
    assert [exits.exit_code(error) for error in bench.stalls] == [71]


@pytest.mark.parametrize(
    ("stuck", "says"),
    [("t/0/7", "t/0/7 had no outcome.*explain t/0/7"), (None, "nothing of what the source has")],
)
def test_a_stall_names_the_record_that_is_stuck(stuck: str | None, says: str) -> None:
    bench = Bench()
    bench.stuck = stuck
    assert bench.dog.tick(1.0) is False
    assert bench.dog.tick(10.0)
    assert re.search(says, bench.stalls[0].message)


def test_what_is_stuck_is_logged_once_for_every_time_that_it_makes_unready() -> None:
    bench = Bench()
    bench.stuck = "t/0/7"
    said: list[str | None] = []
    with capture_logs() as lines:
        for _ in range(9):
            bench.dog.tick(1.0)
            said.append(bench.dog.stalled)
        assert lines == [
            {"event": "record_stuck", "place": "t/0/7", "seconds": 5.0, "log_level": "warning"}
        ]
        bench.progress += 1
        bench.dog.tick(1.0)
        assert bench.dog.stalled is None
        bench.stuck = None
        for _ in range(9):
            bench.dog.tick(1.0)
    assert said == [None] * 4 + [f"t/0/7 for {seconds} s" for seconds in range(5, 10)]
    assert [line["event"] for line in lines] == ["record_stuck", "source_stuck"]


def test_an_outage_of_half_the_limit_is_no_word_in_the_log() -> None:
    bench = Bench()
    bench.outage = True
    with capture_logs() as lines:
        for _ in range(9):
            bench.dog.tick(1.0)
    assert lines == []


def test_progress_begins_anew() -> None:
    bench = Bench()
    for _ in range(5):
        for _ in range(9):
            assert not bench.dog.tick(1.0)
        bench.progress += 1
        assert not bench.dog.tick(1.0)
    assert bench.dog.stalled is None
    assert bench.stalls == []


def test_idleness_and_known_outages_are_no_stall_however_long() -> None:
    for name in ("busy", "outage"):
        bench = Bench()
        setattr(bench, name, name == "outage")
        for _ in range(100):
            assert not bench.dog.tick(1.0)
        assert bench.dog.stalled is None


def test_a_stuck_loop_ends_the_process_and_a_living_one_does_not() -> None:
    bench = Bench()
    for _ in range(30):
        bench.dog.tick(0.0)
        bench.dog.tick_thread(1.0)
    assert bench.deaths == []
    for _ in range(10):
        bench.dog.tick_thread(1.0)
    assert bench.deaths == [71]


def test_a_stuck_loop_ends_the_process_although_its_log_is_stuck_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    died, release = threading.Event(), threading.Event()

    class StuckLog:
        def critical(self, *args: object, **kwargs: object) -> None:
            release.wait(5)

    monkeypatch.setattr(watchdog, "_log", StuckLog())
    monkeypatch.setattr(watchdog, "_LAST_WORDS_S", 0.01)
    bench = Bench()
    bench.dog._die = lambda code: died.set()
    bench.dog.tick(0.0)
    bench.dog.tick_thread(1.0)
    thread = threading.Thread(target=bench.dog.tick_thread, args=(10.0,))
    thread.start()
    ended_while_stuck = died.wait(4)
    release.set()
    thread.join()
    assert ended_while_stuck
