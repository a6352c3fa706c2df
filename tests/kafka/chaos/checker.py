"""Judges a storm by what is on the broker alone: topics and committed offsets.

It uses nothing of the service. What is to come of a source record stands in a header of
that record (`load.EXPECT`); which record an outcome belongs to stands in the outcome's. Of
verdicts it reads product, revision and outcome, and only where it is given `Terms`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

Place = tuple[int, int]
Headers = Mapping[str, bytes | None]

#: What each expectation means: copies on the verdict topic, copies on the dead-letter topic.
EXPECTED: Mapping[str, tuple[int, int]] = {
    "verdict": (1, 0),
    "unjudgeable": (1, 0),
    "tombstone": (1, 0),
    "both": (1, 1),
    "letter": (0, 1),
}
_EXAMPLES = 5
# What a dead letter says of its error may take as much beside the record itself.
_ERROR_HEADERS = 10_000


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """A record of the source topic.

    Attributes:
        place: Partition and offset.
        key: Key bytes.
        value: Value bytes; None is a tombstone.
        expect: A key of `EXPECTED`.
        headers: By name.
    """

    place: Place
    key: bytes | None
    value: bytes | None
    expect: str
    headers: Headers = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        named = sum(len(name) + len(content or b"") for name, content in self.headers.items())
        return len(self.key or b"") + len(self.value or b"") + named


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


@dataclass(frozen=True, slots=True)
class Terms:
    """What stream_judge promises of the outcomes themselves; other workers do not.

    Attributes:
        max_record_bytes: A dead letter that fits leaves nothing out.
    """

    max_record_bytes: int


@dataclass(slots=True)
class Findings:
    """What was found; all but the two counts of dead letters should be 0.

    Attributes:
        lost: Source records without an outcome that was due.
        repeated: Outcomes beyond the first of their record, or that nobody expected.
        order_breaks: Outcomes behind one of a later record of their source partition, on
            one partition of an output topic.
        strayed: Verdicts on another partition than the first one of their product.
        committed_past: Source records before a committed offset without all outcomes.
        turned_back: Times that a committed offset was lower than before.
        misplaced: Partitions whose committed offset is missing, before the end of their
            records, or past their end, when all was done.
        mistaken: Verdicts that are not of their record: another key, product or revision,
            a verdict for a tombstone or a tombstone for an update, or judged where nothing
            could be.
        unjudged: Verdicts of sound updates that had to be judged and are not.
        altered: Dead letters that are not the source record's bytes and headers.
        dead_letters: Records with a dead letter.
        dead_letters_expected: Records that were to have one.
        examples: A few of the worst, in words.
    """

    lost: int = 0
    repeated: int = 0
    order_breaks: int = 0
    strayed: int = 0
    committed_past: int = 0
    turned_back: int = 0
    misplaced: int = 0
    mistaken: int = 0
    unjudged: int = 0
    altered: int = 0
    dead_letters: int = 0
    dead_letters_expected: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether all promises were kept."""
        return not self.broken and self.dead_letters == self.dead_letters_expected

    @property
    def broken(self) -> dict[str, int]:
        """The counts that are not 0, by name; dead letters apart."""
        return {name: many for name in _BROKEN if (many := getattr(self, name))}

    def say(self, what: str) -> None:
        """Keep an example, if there are few."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append(what)


_BROKEN = (
    "lost",
    "repeated",
    "order_breaks",
    "strayed",
    "committed_past",
    "turned_back",
    "misplaced",
    "mistaken",
    "unjudged",
    "altered",
)


def check(
    source: Sequence[SourceEntry],
    verdicts: Sequence[Outcome],
    letters: Sequence[Outcome],
    committed: Mapping[int, int],
    *,
    ends: Mapping[int, int] | None = None,
    passed: Collection[Place] = (),
    terms: Terms | None = None,
) -> Findings:
    """Everything that is wrong with the outcomes of a source.

    Args:
        source: All of its records.
        verdicts: All of the verdict topic.
        letters: All of the dead-letter topic.
        committed: The group's offset for each source partition.
        ends: Where each source partition ends; None where not all was done.
        passed: Source records that `passed_over` found in the middle of it.
        terms: What holds of the outcomes themselves; None looks at their places alone.
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
    _check_partitions(verdicts, found)
    readable = ({o.place for o in verdicts}, {o.place for o in letters})
    past = passed_over(source, *readable, committed).union(passed)
    found.committed_past = len(past)
    if past:
        names = ", ".join(_name(place) for place in sorted(past)[:10])
        found.say(f"committed past {len(past)} unpublished outcomes: {names}")
    if ends is not None:
        _check_offsets(behind_last(source), committed, ends, found)
    origin = {entry.place: entry for entry in source}
    if terms is not None:
        _check_verdicts(origin, verdicts, found)
    _check_letters(origin, letters, terms, found)
    return found


def passed_over(
    source: Iterable[SourceEntry],
    verdicts: Collection[Place],
    letters: Collection[Place],
    committed: Mapping[int, int],
) -> set[Place]:
    """Source records before the committed offset whose outcomes cannot all be read.

    During a storm read the offsets first and the outcomes afterwards.

    Args:
        source: Its records.
        verdicts: Source records that have a verdict.
        letters: Source records that have a dead letter.
        committed: The group's offset for each source partition.
    """
    return {
        entry.place
        for entry in source
        if entry.place[1] < committed.get(entry.place[0], 0)
        and any(
            due and entry.place not in side
            for due, side in zip(EXPECTED[entry.expect], (verdicts, letters), strict=True)
        )
    }


def behind_last(source: Iterable[SourceEntry]) -> dict[int, int]:
    """The offset behind the last record of each source partition that has any."""
    last: dict[int, int] = {}
    for entry in source:
        number, offset = entry.place
        last[number] = max(last.get(number, 0), offset + 1)
    return last


def _check_order(outcomes: Sequence[Outcome], found: Findings) -> None:
    newest: dict[tuple[int, int], int] = defaultdict(lambda: -1)
    for outcome in outcomes:
        partition, offset = outcome.place
        # One output partition is one sequence; between two of them no order is promised.
        kept = (outcome.partition, partition)
        if offset < newest[kept]:
            found.order_breaks += 1
            found.say(f"order: {_name(outcome.place)} behind offset {newest[kept]}")
        newest[kept] = max(newest[kept], offset)


def _check_partitions(verdicts: Sequence[Outcome], found: Findings) -> None:
    """A product's verdicts are in one partition: readers see them in order only there."""
    home: dict[bytes, int] = {}
    for verdict in verdicts:
        if verdict.key is None:
            continue
        first = home.setdefault(verdict.key, verdict.partition)
        if verdict.partition != first:
            found.strayed += 1
            found.say(f"strayed: {_name(verdict.place)} to {verdict.partition}, not to {first}")


def _check_offsets(
    last: Mapping[int, int],
    committed: Mapping[int, int],
    ends: Mapping[int, int],
    found: Findings,
) -> None:
    for number, least in last.items():
        offset = committed.get(number)
        if offset is None or not least <= offset <= ends[number]:
            found.misplaced += 1
            found.say(f"misplaced: partition {number} at {offset}, not {least} to {ends[number]}")


def _check_verdicts(
    origin: Mapping[Place, SourceEntry], verdicts: Sequence[Outcome], found: Findings
) -> None:
    for verdict in verdicts:
        entry = origin.get(verdict.place)
        if entry is None or not EXPECTED[entry.expect][0]:
            continue
        told = _read(verdict.value)
        if not _answers(verdict, told, entry):
            found.mistaken += 1
            found.say(f"mistaken: {_name(verdict.place)}: {(verdict.value or b'')[:400]!r}")
        elif entry.expect == "verdict" and told.get("outcome") != "judged":
            found.unjudged += 1
            found.say(f"unjudged: {_name(verdict.place)}: {(verdict.value or b'')[:400]!r}")


def _answers(verdict: Outcome, told: Mapping[str, Any], entry: SourceEntry) -> bool:
    """Whether a verdict is that of a source record."""
    if entry.key is not None and verdict.key != entry.key:
        return False
    if entry.expect == "tombstone" or verdict.value is None:
        return entry.expect == "tombstone" and verdict.value is None
    if entry.expect != "verdict" and told.get("outcome") != "unjudgeable":
        return False
    product = told.get("product_id")
    if not isinstance(product, str) or verdict.key != product.encode():
        return False
    if entry.expect == "both":
        # What cannot be read has no more than a key.
        return True
    update = _read(entry.value)
    return (product, told.get("revision")) == (update.get("id"), update.get("revision"))


def _read(value: bytes | None) -> dict[str, Any]:
    """A JSON object; empty for anything else."""
    try:
        read = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}


def _check_letters(
    origin: Mapping[Place, SourceEntry],
    letters: Sequence[Outcome],
    terms: Terms | None,
    found: Findings,
) -> None:
    for letter in letters:
        entry = origin.get(letter.place)
        if entry is not None and not _untouched(letter, entry, terms):
            found.altered += 1
            found.say(f"altered: the dead letter of {_name(letter.place)}")


def _untouched(letter: Outcome, entry: SourceEntry, terms: Terms | None) -> bool:
    """Whether a dead letter is its record; what it leaves out it must have had to."""
    headers = letter.headers
    same_key = _same(letter.key, entry.key, "key", headers)
    same = same_key and _same(letter.value, entry.value, "value", headers)
    if terms is None:
        return same
    omits = any(f"sj-{part}-omitted" in headers for part in ("key", "value", "headers"))
    needless = omits and entry.size + _ERROR_HEADERS <= terms.max_record_bytes
    kept = "sj-headers-omitted" in headers or entry.headers.items() <= headers.items()
    return same and kept and not needless


def _same(letter: bytes | None, origin: bytes | None, part: str, headers: Headers) -> bool:
    if f"sj-{part}-omitted" in headers:
        digest = hashlib.sha256(origin or b"").hexdigest().encode()
        return headers.get(f"sj-{part}-sha256") == digest
    if "sj-null" in headers and origin is None:
        return letter in (None, b"")
    return letter == origin


def _name(place: Place) -> str:
    return f"{place[0]}/{place[1]}"
