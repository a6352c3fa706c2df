"""What was published, held against the truth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stream_judge.demo.feed import Fed, Place
from stream_judge.demo.readback import Seen

# What is read back of an update, by what it was drawn to end as. Every key of the shop names a
# product, so that a dead letter's gate is told as well.
_EXPECTED = {
    "judged": frozenset({"judged"}),
    "unjudgeable": frozenset({"unjudgeable"}),
    "dead_letter": frozenset({"dead_letter", "unjudgeable"}),
    "tombstone": frozenset({"tombstone"}),
}


@dataclass(frozen=True, slots=True)
class Summary:
    """The demo's figures; the names are those of `--json`.

    Attributes:
        events: Updates published.
        verdicts: Verdict records read back, tombstones not among them.
        judged: Of them, with a score.
        unjudgeable: Of them, without a score and without a dead letter.
        dead_letters: Records on the dead-letter topic.
        tombstones: Tombstones on the verdict topic.
        lost: Updates without any outcome.
        duplicates: Outcomes beyond the first of an update.
        order_breaks: Outcomes that stand behind a later one of their source partition.
        accuracy: Share of judged listings whose verdict is the truth.
        false_publish: Not relevant, or not to be judged at all, but decided `publish`.
        false_block: Relevant, but decided `block`.
        verdicts_per_s: Outcomes by the time from the first update to the last outcome.
        latency_p50_ms: From an update's publication to its outcome's, milliseconds.
        latency_p99_ms: The same.
        setup_s: Until all parts were ready, seconds.
        expected: Updates that ended as they were drawn to: judged (rightly or not),
            unjudgeable, as a dead letter with its verdict, as a tombstone.
        unexpected: A line for each of the others: product, what was expected, what came.
    """

    events: int
    verdicts: int
    judged: int
    unjudgeable: int
    dead_letters: int
    tombstones: int
    lost: int
    duplicates: int
    order_breaks: int
    accuracy: float
    false_publish: int
    false_block: int
    verdicts_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float
    setup_s: float
    expected: int
    unexpected: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)

    def figures(self) -> dict[str, int | float]:
        """The numbers alone, for a table."""
        return {name: value for name, value in asdict(self).items() if name != "unexpected"}

    @property
    def delivered(self) -> bool:
        """Whether every update has exactly one outcome, in order."""
        return self.lost == self.duplicates == self.order_breaks == 0

    @property
    def passed(self) -> bool:
        """Whether every update has exactly one outcome, in order, of the kind it should have."""
        return self.delivered and self.expected == self.events


def summarise(
    fed: Sequence[Fed], seen: Sequence[Seen], truth: Sequence[dict[str, Any]], setup_s: float
) -> Summary:
    """The figures of a run.

    Args:
        fed: What was published, in order.
        seen: What was read back; in order within an output partition.
        truth: A line each, as `truth.jsonl` has them.
        setup_s: Until all parts were ready.
    """
    dead = {record.place for record in seen if record.dead_letter}
    verdicts = [record for record in seen if record.verdict is not None]
    judged = sum((record.verdict or {}).get("outcome") == "judged" for record in verdicts)
    right, false_publish, false_block = _held(fed, verdicts, truth)
    unexpected = _unexpected(fed, kinds_by_place(seen), truth)
    places = {record.place for record in seen}
    counts = Counter((record.place, record.dead_letter) for record in seen)
    latencies = _latencies(fed, seen)
    began = min((entry.timestamp_ms for entry in fed), default=0)
    ended = max((record.timestamp_ms for record in seen), default=began)
    return Summary(
        events=len(fed),
        verdicts=len(verdicts),
        judged=judged,
        unjudgeable=sum(
            record.place not in dead and (record.verdict or {}).get("outcome") == "unjudgeable"
            for record in verdicts
        ),
        dead_letters=sum(record.dead_letter for record in seen),
        tombstones=sum(r.verdict is None and not r.dead_letter for r in seen),
        lost=sum(entry.place not in places for entry in fed),
        duplicates=sum(count - 1 for count in counts.values()),
        order_breaks=_order_breaks(seen),
        accuracy=round(right / judged, 4) if judged else 0.0,
        false_publish=false_publish,
        false_block=false_block,
        verdicts_per_s=round(1000 * len(places) / (ended - began), 1) if ended > began else 0.0,
        latency_p50_ms=_percentile(latencies, 0.50),
        latency_p99_ms=_percentile(latencies, 0.99),
        setup_s=round(setup_s, 1),
        expected=len(fed) - len(unexpected),
        unexpected=unexpected,
    )


def _held(
    fed: Sequence[Fed], verdicts: Sequence[Seen], truth: Sequence[dict[str, Any]]
) -> tuple[int, int, int]:
    """Right verdicts, false publications and false blocks."""
    line_of = {entry.place: entry.line for entry in fed}
    right = false_publish = false_block = 0
    for record in verdicts:
        relevant = truth[line_of[record.place]]["relevant"]
        verdict = record.verdict or {}
        if verdict["outcome"] == "judged":
            right += (verdict["verdict"] == "relevant") == relevant
        # None: a picture or an event that is broken, and nothing to be published.
        false_publish += verdict["decision"] == "publish" and relevant is not True
        false_block += verdict["decision"] == "block" and relevant is True
    return right, false_publish, false_block


def kinds_by_place(seen: Sequence[Seen]) -> dict[Place, frozenset[str]]:
    """What came of each update: its outcomes, and `dead_letter` or `tombstone`, by its place."""
    kinds: dict[Place, set[str]] = defaultdict(set)
    for record in seen:
        kinds[record.place].add(_kind(record))
    return {place: frozenset(found) for place, found in kinds.items()}


def is_expected(line: dict[str, Any], kinds: frozenset[str]) -> bool:
    """Whether an update ended as it was drawn to.

    Args:
        line: Its line of the truth.
        kinds: What came of it, as `kinds_by_place` says it.
    """
    return kinds == _EXPECTED[line["expect"]]


def _kind(record: Seen) -> str:
    if record.dead_letter:
        return "dead_letter"
    return "tombstone" if record.verdict is None else str(record.verdict["outcome"])


def _unexpected(
    fed: Sequence[Fed], kinds: dict[Place, frozenset[str]], truth: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    found = []
    for entry in fed:
        line, came = truth[entry.line], kinds.get(entry.place, frozenset())
        if not is_expected(line, came):
            wanted = " and ".join(sorted(_EXPECTED[line["expect"]]))
            said = " and ".join(sorted(came)) or "nothing"
            found.append(f"{line['product_id']}: {wanted} expected, {said} came")
    return tuple(found)


def _order_breaks(seen: Sequence[Seen]) -> int:
    newest: dict[tuple[bool, int, int], int] = defaultdict(lambda: -1)
    breaks = 0
    for record in seen:
        partition, offset = record.place
        lane = (record.dead_letter, record.partition, partition)
        breaks += offset < newest[lane]
        newest[lane] = max(newest[lane], offset)
    return breaks


def _latencies(fed: Sequence[Fed], seen: Sequence[Seen]) -> list[int]:
    first: dict[Place, int] = {}
    for record in seen:
        first.setdefault(record.place, record.timestamp_ms)
    return sorted(first[entry.place] - entry.timestamp_ms for entry in fed if entry.place in first)


def _percentile(values: Sequence[int], share: float) -> float:
    return float(values[min(len(values) - 1, int(share * len(values)))]) if values else 0.0
