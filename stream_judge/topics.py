"""The Kafka topics: making them, and holding them against what the worker needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    InvalidReplicationFactorError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from stream_judge.connection import ask_any, open_admin
from stream_judge.errors import BrokerError
from stream_judge.findings import Finding, Status
from stream_judge.settings import KafkaSettings

_DAY_MS = 24 * 3600 * 1000
_MONTH_MS = 30 * _DAY_MS
# Somebody has to see a dead letter, mend what made it, and redrive it.
_WEEK_MS = 7 * _DAY_MS
# From so many replicas on one can be away while two confirm every outcome.
_SAFE_REPLICAS = 3
# A leader is elected, and a new topic known to every broker, within a second as a rule.
_TRIES = 4
_PAUSE_S = 0.3
_CONFIGS = (
    "max.message.bytes",
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
    "min.insync.replicas",
)
# Not every broker that speaks the protocol has it.
_UNCLEAN = "unclean.leader.election.enable"


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    partitions: int
    configs: dict[str, str]


def _wanted(settings: KafkaSettings, partitions: int, replication: int) -> list[_Wanted]:
    outcomes = {"max.message.bytes": str(settings.max_record_bytes + 10_000)}
    if replication >= _SAFE_REPLICAS:
        # By default one broker confirms alone once the others lag, and can forget alone.
        outcomes["min.insync.replicas"] = "2"
    month = {"retention.ms": str(_MONTH_MS)}
    return [
        _Wanted(settings.topic, partitions, {**month}),
        # The gate needs the newest verdict of each product, however old.
        _Wanted(settings.verdict_topic, partitions, {**outcomes, "cleanup.policy": "compact"}),
        _Wanted(settings.dead_letter_topic, 1, {**outcomes, **month}),
    ]


async def create_topics(settings: KafkaSettings, partitions: int, replication: int) -> list[str]:
    """Make the topics that are missing; one line for each.

    With three replicas or more, two of them have to confirm each outcome.

    Raises:
        BrokerError: No broker, or it refuses; the message ends with the lines until then.
    """
    client = await open_admin(settings)
    lines: list[str] = []
    try:
        there = set(await client.list_topics())
        for wanted in _wanted(settings, partitions, replication):
            if wanted.name in there:
                lines.append(f"{wanted.name}: is there already")
                continue
            topic = NewTopic(
                wanted.name, wanted.partitions, replication, topic_configs=wanted.configs
            )
            answer = await client.create_topics([topic])
            for _, code, *message in answer.topic_errors:
                if code:
                    raise BrokerError("; ".join([_refused(wanted.name, code, message), *lines]))
            lines.append(f"{wanted.name}: made with {wanted.partitions} partitions")
        return lines
    except KafkaError as exc:
        raise BrokerError("; ".join([f"the broker refuses: {exc!r}", *lines])) from exc
    finally:
        await client.close()


def _refused(name: str, code: int, message: Sequence[str | None]) -> str:
    """Why a topic was not made, and what to do."""
    error = for_code(code)
    # The oldest brokers give no message.
    words = [part.rstrip(".") for part in message if part]
    says = ": ".join([name, error.__name__, *words])
    if error is InvalidReplicationFactorError:
        says += "; lower --replication to the number of brokers"
    return says


async def check_topics(settings: KafkaSettings) -> list[Finding]:
    """Whether each topic is as needed, and what to do if not.

    Raises:
        BrokerError: No broker, or it refuses.
    """
    client = await open_admin(settings)
    try:
        findings: list[Finding] = []
        for name in (settings.topic, settings.verdict_topic, settings.dead_letter_topic):
            findings += await _check_topic(client, name, settings)
        return findings
    except KafkaError as exc:
        raise BrokerError(f"the broker went away, or refuses: {exc!r}") from exc
    finally:
        await client.close()


def _finding(status: Status, name: str, says: str) -> Finding:
    return Finding("topic", status, f"{name}: {says}")


async def _check_topic(client: Any, name: str, settings: KafkaSettings) -> list[Finding]:
    # Whoever only looks must not make a topic; that is the client's default.
    request = MetadataRequest([name], allow_auto_topic_creation=False)
    code, topic = await _asked(client, request, "topics")
    if code:
        return [_finding("wrong", name, _unseen(code))]
    parts = topic["partitions"]
    copies = min((len(part["replicas"]) for part in parts), default=0)
    findings = [_finding("ok", name, f"{len(parts)} partitions, {copies} replicas")]
    # The broker answers for such a topic without an error.
    if leaderless := [part for part in parts if part["leader"] < 0]:
        numbers = _listed(part["partition"] for part in leaderless)
        brokers = _listed(broker for part in leaderless for broker in part["replicas"])
        says = f"no leader for partition {numbers}: nothing can be read or written there"
        says += f"; start the brokers that hold it ({brokers})"
        findings.append(_finding("wrong", name, says))
    led = [part for part in parts if part["leader"] >= 0]
    in_sync = min((len(part["isr"]) for part in led), default=copies)
    return findings + await _check_configs(client, name, settings, copies, in_sync)


async def _asked(client: Any, request: Any, answers: str) -> tuple[int, dict[str, Any]]:
    """Error code and answer for the one topic of a request; what may pass is asked again."""
    for attempt in range(_TRIES):
        if attempt:
            await asyncio.sleep(_PAUSE_S)
        (answer,) = (await ask_any(client._client, request)).to_object()[answers]
        codes = [part["error_code"] for part in (answer, *answer.get("partitions", ()))]
        if not any(for_code(code).retriable for code in codes):
            break
    return answer["error_code"], answer


def _unseen(code: int) -> str:
    """What it means that the broker says nothing of a topic but an error."""
    if code == TopicAuthorizationFailedError.errno:
        return "this account may not see it; `stream-judge doctor` names the right"
    if code == UnknownTopicOrPartitionError.errno:
        return "missing; run `stream-judge topics create`"
    return _answers(code)


def _answers(code: int) -> str:
    return f"the broker answers {for_code(code).__name__} ({code}); if that stays, look at its log"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))


async def _check_configs(
    client: Any, name: str, settings: KafkaSettings, copies: int, in_sync: int
) -> list[Finding]:
    asked = [*_CONFIGS, _UNCLEAN]
    request = DescribeConfigsRequest([(ConfigResourceType.TOPIC, name, asked)])
    try:
        code, answer = await _asked(client, request, "resources")
        if code == TopicAuthorizationFailedError.errno:
            says = "sizes are unknown: this account lacks DescribeConfigs on it"
            return [_finding("note", name, says)]
        if code:
            return [_finding("wrong", name, f"sizes are unknown: {_answers(code)}")]
        found = {entry["config_names"]: entry["config_value"] for entry in answer["config_entries"]}
        configs = {key: str(found[key]) for key in _CONFIGS}
        configs[_UNCLEAN] = str(found.get(_UNCLEAN))
    except (IncompatibleBrokerVersion, NotImplementedError, KeyError, ValueError, TypeError) as exc:
        says = f"this broker does not tell sizes ({type(exc).__name__})"
        return [_finding("note", name, says)]
    return judge_configs(name, configs, settings, copies, in_sync)


def judge_configs(
    name: str, configs: dict[str, str], settings: KafkaSettings, copies: int, in_sync: int
) -> list[Finding]:
    """What a topic's configuration means for the worker.

    Args:
        name: The topic.
        configs: Its `max.message.bytes`, `cleanup.policy`, `retention.ms` (milliseconds, -1
            for ever), `retention.bytes` (of a partition, -1 for any number),
            `min.insync.replicas` and, if the broker has it, `unclean.leader.election.enable`,
            as the broker writes them.
        settings: Which topic is which, and the largest record that is sent.
        copies: Replicas that its partitions have at least.
        in_sync: Those of them that are in sync, at least, in partitions that have a leader.
    """
    judged: list[tuple[Status, str]] = []
    if name != settings.topic:
        judged.append(_size(configs, settings))
        judged += _durability(configs, copies)
    if name == settings.dead_letter_topic:
        judged += _dead_letters_kept(configs)
    if name == settings.verdict_topic and (end := _end(configs)):
        says = f"verdicts are gone {end}, also the newest of a product"
        judged.append(("wrong", f"{says}; set cleanup.policy to compact alone"))
    judged += _availability(configs, copies, in_sync)
    return [_finding(status, name, says) for status, says in judged]


def _size(configs: dict[str, str], settings: KafkaSettings) -> tuple[Status, str]:
    limit, needed = int(configs["max.message.bytes"]), settings.max_record_bytes
    says = f"max.message.bytes {limit}"
    if limit >= needed:
        return "ok", says
    return (
        "wrong",
        f"{says} is below kafka.max_record_bytes {needed}; raise the one or lower the other",
    )


def _durability(configs: dict[str, str], copies: int) -> Iterator[tuple[Status, str]]:
    """Whether a confirmed outcome outlives the loss of a broker's disk."""
    least = int(configs["min.insync.replicas"])
    alone = f"one broker may confirm alone (min.insync.replicas {least}), and forget alone"
    if copies >= _SAFE_REPLICAS and least < 2:
        yield "wrong", f"{alone}; set it to 2"
    elif copies == 2 and least < 2:
        safe = f"{_SAFE_REPLICAS} replicas with min.insync.replicas 2"
        yield "note", f"{alone}; {safe} keep what was confirmed"
    elif copies == 1:
        yield "note", "there is 1 replica: a disk that is lost loses outcomes that were confirmed"
    if copies > 1 and configs.get(_UNCLEAN) == "true":
        says = f"{_UNCLEAN} true lets a replica lead that lacks confirmed outcomes"
        yield "note", f"{says}; set it to false"


def _dead_letters_kept(configs: dict[str, str]) -> Iterator[tuple[Status, str]]:
    if "compact" in configs["cleanup.policy"]:
        says = "cleanup.policy compact drops all but the last dead letter of a key"
        yield "wrong", f"{says}; use delete"
    is_short = 0 <= int(configs["retention.ms"]) < _WEEK_MS or int(configs["retention.bytes"]) >= 0
    if is_short and (end := _end(configs)):
        advice = f"retention.ms {_MONTH_MS} and retention.bytes -1 are what `topics create` sets"
        yield "note", f"dead letters are gone {end}, redriven or not; {advice}"


def _availability(
    configs: dict[str, str], copies: int, in_sync: int
) -> Iterator[tuple[Status, str]]:
    """Whether the brokers that are there can confirm a record at all."""
    if (least := int(configs["min.insync.replicas"])) > copies:
        says = f"min.insync.replicas {least} with {copies} replicas refuses every record"
        yield "wrong", f"{says}; lower the one or add replicas"
    elif least > in_sync:
        says = f"min.insync.replicas {least} refuses every record of a partition with {in_sync}"
        yield "wrong", f"{says} in sync; start the brokers that are away"


def _end(configs: dict[str, str]) -> str | None:
    """When the broker drops a record that no newer one has replaced; None if never."""
    # Of "compact,delete" the second half alone is enough.
    if "delete" not in configs["cleanup.policy"]:
        return None
    ends = []
    if (kept_ms := int(configs["retention.ms"])) >= 0:
        ends.append(f"after {kept_ms / _DAY_MS:g} days")
    if (most := int(configs["retention.bytes"])) >= 0:
        ends.append(f"once a partition has {most} bytes")
    return " or ".join(ends) or None
