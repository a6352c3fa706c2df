"""Judges a storm by what is on the broker alone: topics and committed offsets.

It knows nothing of the service. What is to come of a source record stands in a header of
that record (`load.EXPECT`); which record an outcome belongs to stands in the outcome's.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Place = tuple[int, int]
Headers = Mapping[str, bytes | None]

#: What each expectation means: copies on the verdict topic, copies on the dead-letter topic.
EXPECTED: Mapping[str, tuple[int, int]] = {"verdict": (1, 0), "both": (1, 1), "letter": (0, 1)}
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """A record of the source topic.

    Attributes:
        place: Partition and offset.
        key: Key bytes.
        value: Value bytes; None is a tombstone.
        expect: A key of `EXPECTED`.
    """

    place: Place
    key: bytes | None
    value: bytes | None
    expect: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A committed record of an output topic, in the order of its partition.

    Attributes:
        place: Source partition and offset that it names.
        key: Key bytes.
        value: Value bytes.
        partition: Of the output topic.
        headers: By name.
    """

    place: Place
    key: bytes | None
    value: bytes | None
    partition: int
    headers: Headers = field(default_factory=dict)


@dataclass(slots=True)
class Findings:
    """What was found; all but the two counts of dead letters should be 0.

    Attributes:
        lost: Source records without an outcome that was due.
        repeated: Outcomes beyond the first of their record, or that nobody expected.
        order_breaks: Outcomes of a product behind one of a later record of its partition.
        committed_past: Source records before a committed offset without all outcomes.
        altered: Dead letters that are not the source record's bytes.
        dead_letters: Records with a dead letter.
        dead_letters_expected: Records that were to have one.
        examples: A few of the worst, in words.
    """

    lost: int = 0
    repeated: int = 0
    order_breaks: int = 0
    committed_past: int = 0
    altered: int = 0
    dead_letters: int = 0
    dead_letters_expected: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether all promises were kept."""
        broken = self.lost + self.repeated + self.order_breaks + self.committed_past + self.altered
        return broken == 0 and self.dead_letters == self.dead_letters_expected

    def say(self, what: str) -> None:
        """Keep an example, if there are few."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what)


def check(
    source: Sequence[SourceEntry],
    verdicts: Sequence[Outcome],
    letters: Sequence[Outcome],
    committed: Mapping[int, int],
) -> Findings:
    """Everything that is wrong with the outcomes of a source.

    Args:
        source: All of its records.
        verdicts: All of the verdict topic.
        letters: All of the dead-letter topic.
        committed: The group's offset for each source partition.
    """
    found = Findings()
    got = (Counter(o.place for o in verdicts), Counter(o.place for o in letters))
    wanted = {entry.place: EXPECTED[entry.expect] for entry in source}
    found.dead_letters = len(got[1])
    found.dead_letters_expected = sum(due[1] for due in wanted.values())
    for name, counts, side in (("verdict", got[0], 0), ("dead letter", got[1], 1)):
        for place, due in wanted.items():
            if counts[place] < due[side]:
                found.lost += 1
                found.say(f"lost: no {name} for {_name(place)}")
        for place, many in counts.items():
            extra = many - wanted.get(place, (0, 0))[side]
            if extra > 0:
                found.repeated += extra
                found.say(f"repeated: {many} times a {name} for {_name(place)}")
    _check_order(verdicts, found)
    _check_order(letters, found)
    found.committed_past = passed_over(source, verdicts, letters, committed)
    if found.committed_past:
        found.say(f"committed {dict(committed)} past {found.committed_past} unpublished outcomes")
    _check_bytes(source, letters, found)
    return found


def passed_over(
    source: Sequence[SourceEntry],
    verdicts: Iterable[Outcome],
    letters: Iterable[Outcome],
    committed: Mapping[int, int],
) -> int:
    """Source records before the committed offset whose outcomes cannot all be read.

    During a storm read the offsets first and the outcomes afterwards.
    """
    have = ({o.place for o in verdicts}, {o.place for o in letters})
    return sum(
        any(
            due and entry.place not in side
            for due, side in zip(EXPECTED[entry.expect], have, strict=True)
        )
        for entry in source
        if entry.place[1] < committed.get(entry.place[0], 0)
    )


def _check_order(outcomes: Sequence[Outcome], found: Findings) -> None:
    newest: dict[tuple[int, int, bytes | None], int] = defaultdict(lambda: -1)
    for outcome in outcomes:
        partition, offset = outcome.place
        # Without a key records are spread over partitions: no order among those is promised.
        kept = (outcome.partition, partition, outcome.key)
        if offset < newest[kept]:
            found.order_breaks += 1
            found.say(f"order: {_name(outcome.place)} behind offset {newest[kept]}")
        newest[kept] = max(newest[kept], offset)


def _check_bytes(
    source: Sequence[SourceEntry], letters: Sequence[Outcome], found: Findings
) -> None:
    origin = {entry.place: entry for entry in source}
    for letter in letters:
        entry = origin.get(letter.place)
        if entry is None:
            continue
        same_key = _same(letter.key, entry.key, "key", letter.headers)
        if not (same_key and _same(letter.value, entry.value, "value", letter.headers)):
            found.altered += 1
            found.say(f"altered: the dead letter of {_name(letter.place)}")


def _same(letter: bytes | None, origin: bytes | None, part: str, headers: Headers) -> bool:
    if f"sj-{part}-omitted" in headers:
        digest = hashlib.sha256(origin or b"").hexdigest().encode()
        return headers.get(f"sj-{part}-sha256") == digest
    if "sj-null" in headers and origin is None:
        return letter in (None, b"")
    return letter == origin


def _name(place: Place) -> str:
    return f"{place[0]}/{place[1]}"
