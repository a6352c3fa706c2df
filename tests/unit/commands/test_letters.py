from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stream_judge.commands import letters
from stream_judge.commands.letters import milliseconds
from stream_judge.dead_letters import DeadLetter
from stream_judge.errors import BrokerError, ConfigError
from tests.unit.memory_log import MemoryLog
from tests.unit.test_dead_letters import Producer, add, use


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    made = MemoryLog()
    made.install(monkeypatch)
    for number in range(4):
        add(made, b"{%d" % number)
    return made


def values(producer: Producer) -> list[bytes | None]:
    return [value for _, value, _ in producer.sent]


@pytest.mark.parametrize("place", ["abc", "0", "0/", "/1", "0/-1", "0/1/2", "0/²"])
def test_what_is_no_place_of_a_letter_is_said(place: str) -> None:
    says = f"^{place}: expected PARTITION/OFFSET"
    with pytest.raises(ConfigError, match=says):
        letters.show(place)
    with pytest.raises(ConfigError, match=says):
        letters.redrive_([place])
    with pytest.raises(ConfigError, match=says):
        letters.redrive_(every=True, after=place)


@pytest.mark.parametrize("after", [None, "0/0"])
def test_a_redrive_that_nothing_narrows_is_refused(after: str | None) -> None:
    with pytest.raises(ConfigError, match="nothing says which dead letters go; .* --all"):
        letters.redrive_(after=after)


@pytest.mark.parametrize(
    "given",
    [
        {"places": ["0/1"], "every": True},
        {"places": ["0/1"], "code": ["bad_event"]},
        {"places": ["0/1"], "since": "2026-11-24"},
        {"until": "2026-11-24", "every": True},
    ],
)
def test_a_redrive_of_which_two_things_are_said_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="give one of the three"):
        letters.redrive_(**given, dry_run=True)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"every": True}, [b"{0", b"{1", b"{2", b"{3"]),
        ({"every": True, "after": "0/1"}, [b"{2", b"{3"]),
        ({"code": ["bad_event"], "after": "0/2"}, [b"{3"]),
        ({"code": ["other"]}, []),
        ({"places": ["0/3", "0/1"]}, [b"{1", b"{3"]),
    ],
)
def test_what_is_chosen_goes_and_nothing_else(
    log: MemoryLog,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, Any],
    sent: list[bytes],
) -> None:
    producer = use(monkeypatch, Producer(9))
    letters.redrive_(**given, dry_run=True)
    assert capsys.readouterr().out == f"{len(sent)} dead letters would go to product-updates\n"
    assert producer.sent == []
    letters.redrive_(**given)
    assert values(producer) == sent
    went = "went" if sent else "would go"
    assert capsys.readouterr().out == f"{len(sent)} dead letters {went} to product-updates\n"


def test_a_dry_run_needs_no_choice(log: MemoryLog, capsys: pytest.CaptureFixture[str]) -> None:
    letters.redrive_(dry_run=True)
    assert capsys.readouterr().out == "4 dead letters would go to product-updates\n"


@pytest.mark.parametrize("dry_run", [True, False])
def test_as_json_there_is_a_line_for_each_letter(
    log: MemoryLog,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dry_run: bool,
) -> None:
    use(monkeypatch, Producer(9))
    letters.redrive_(every=True, after="0/1", dry_run=dry_run, as_json=True)
    said, aside = capsys.readouterr()
    lines = [json.loads(line) for line in said.splitlines()]
    assert [(line["place"], line["code"]) for line in lines] == [
        ("0/2", "bad_event"),
        ("0/3", "bad_event"),
    ]
    assert aside == ""


def test_as_json_what_went_is_known_though_the_redrive_broke_off(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, Producer(2))
    with pytest.raises(BrokerError, match="--after 0/1"):
        letters.redrive_(every=True, as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["place"] for line in lines] == ["0/0", "0/1"]


class Value(bytes):
    """Counts how many of it there are at once."""

    alive = most = 0

    def __init__(self, _: bytes) -> None:
        Value.alive += 1
        Value.most = max(Value.most, Value.alive)

    def __del__(self) -> None:
        Value.alive -= 1


@pytest.mark.parametrize("as_json", [False, True])
def test_a_list_keeps_no_letter(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def many(*_: Any, **__: Any) -> AsyncIterator[DeadLetter]:
        for offset in range(50):
            yield DeadLetter(0, offset, 9, b"k", Value(b"{bad"), (), {})

    monkeypatch.setattr(letters, "dead_letters", many)
    Value.most = Value.alive
    letters.list_(as_json=as_json)
    assert Value.most - Value.alive <= 2
    assert "0/49" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("1970-01-01T00:00:01", 1000),
        ("1970-01-01T01:00:01+01:00", 1000),
        ("1970-01-02", 86_400_000),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str | None, expected: int | None) -> None:
    assert milliseconds(text) == expected


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="yesterday"):
        milliseconds("yesterday")
