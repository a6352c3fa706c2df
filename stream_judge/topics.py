"""The Kafka topics: making them, and holding them against what the worker needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
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

from stream_judge.connection import ask_any, client_options, connect
from stream_judge.errors import PublishError
from stream_judge.settings import KafkaSettings

_MONTH_MS = 30 * 24 * 3600 * 1000
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    partitions: int
    configs: dict[str, str]


def _wanted(settings: KafkaSettings, partitions: int) -> list[_Wanted]:
    size = {"max.message.bytes": str(settings.max_record_bytes + 10_000)}
    month = {"retention.ms": str(_MONTH_MS)}
    return [
        _Wanted(settings.topic, partitions, {**month}),
        # The gate needs the newest verdict of each product, however old.
        _Wanted(settings.verdict_topic, partitions, {**size, "cleanup.policy": "compact"}),
        _Wanted(settings.dead_letter_topic, 1, {**size, **month}),
    ]


async def _admin(settings: KafkaSettings) -> Any:
    client = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=10_000)
    await connect(client, settings)
    return client


async def create_topics(settings: KafkaSettings, partitions: int, replication: int) -> list[str]:
    """Make the topics that are missing; one line for each.

    Raises:
        PublishError: No broker, or it refuses; the message ends with the lines until then.
    """
    client = await _admin(settings)
    lines: list[str] = []
    try:
        there = set(await client.list_topics())
        for wanted in _wanted(settings, partitions):
            if wanted.name in there:
                lines.append(f"{wanted.name}: is there already")
                continue
            topic = NewTopic(
                wanted.name, wanted.partitions, replication, topic_configs=wanted.configs
            )
            answer = await client.create_topics([topic])
            for _, code, *message in answer.topic_errors:
                if code:
                    raise PublishError("; ".join([_refused(wanted.name, code, message), *lines]))
            lines.append(f"{wanted.name}: made with {wanted.partitions} partitions")
        return lines
    except KafkaError as exc:
        raise PublishError("; ".join([f"the broker refuses: {exc!r}", *lines])) from exc
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


async def check_topics(settings: KafkaSettings) -> list[tuple[bool, str]]:
    """Whether each topic is as needed, with a line that says what to do.

    Raises:
        PublishError: No broker, or it refuses.
    """
    client = await _admin(settings)
    try:
        lines: list[tuple[bool, str]] = []
        for wanted in _wanted(settings, 1):
            lines += await _check_topic(client, wanted.name, settings)
        return lines
    except KafkaError as exc:
        raise PublishError(f"the broker went away, or refuses: {exc!r}") from exc
    finally:
        await client.close()


async def _check_topic(client: Any, name: str, settings: KafkaSettings) -> list[tuple[bool, str]]:
    # Whoever only looks must not make a topic; that is the client's default.
    request = MetadataRequest([name], allow_auto_topic_creation=False)
    code, topic = await _asked(client, request, "topics")
    if code:
        return [(False, _unseen(name, code))]
    parts = topic["partitions"]
    copies = min((len(part["replicas"]) for part in parts), default=0)
    lines = [(True, f"{name}: {len(parts)} partitions, {copies} replicas")]
    # The broker answers for such a topic without an error.
    if leaderless := [part for part in parts if part["leader"] < 0]:
        numbers = _listed(part["partition"] for part in leaderless)
        brokers = _listed(broker for part in leaderless for broker in part["replicas"])
        says = f"no leader for partition {numbers}: nothing can be read or written there"
        lines.append((False, f"{name}: {says}; start the brokers that hold it ({brokers})"))
    led = [part for part in parts if part["leader"] >= 0]
    in_sync = min((len(part["isr"]) for part in led), default=copies)
    return lines + await _check_configs(client, name, settings, copies, in_sync)


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


def _unseen(name: str, code: int) -> str:
    """What it means that the broker says nothing of a topic but an error."""
    if code == TopicAuthorizationFailedError.errno:
        return f"{name}: this account may not see it; `stream-judge doctor` names the right"
    if code == UnknownTopicOrPartitionError.errno:
        return f"{name}: missing; run `stream-judge topics create`"
    return f"{name}: {_answers(code)}"


def _answers(code: int) -> str:
    return f"the broker answers {for_code(code).__name__} ({code}); if that stays, look at its log"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))


async def _check_configs(
    client: Any, name: str, settings: KafkaSettings, copies: int, in_sync: int
) -> list[tuple[bool, str]]:
    request = DescribeConfigsRequest([(ConfigResourceType.TOPIC, name, list(_CONFIGS))])
    try:
        code, answer = await _asked(client, request, "resources")
        if code == TopicAuthorizationFailedError.errno:
            return [(True, f"{name}: sizes are unknown: this account lacks DescribeConfigs on it")]
        if code:
            return [(False, f"{name}: sizes are unknown: {_answers(code)}")]
        found = {entry["config_names"]: entry["config_value"] for entry in answer["config_entries"]}
        configs = {key: str(found[key]) for key in _CONFIGS}
    except (IncompatibleBrokerVersion, NotImplementedError, KeyError, ValueError, TypeError) as exc:
        return [(True, f"{name}: this broker does not tell sizes ({type(exc).__name__})")]
    return judge_configs(name, configs, settings, copies, in_sync)


def judge_configs(
    name: str, configs: dict[str, str], settings: KafkaSettings, copies: int, in_sync: int
) -> list[tuple[bool, str]]:
    """What a topic's configuration means for the worker, a line each.

    Args:
        name: The topic.
        configs: Its `max.message.bytes`, `cleanup.policy`, `retention.ms` (milliseconds, -1
            for ever), `retention.bytes` (of a partition, -1 for any number) and
            `min.insync.replicas`, as the broker writes them.
        settings: Which topic is which, and the largest record that is sent.
        copies: Replicas that its partitions have at least.
        in_sync: Those of them that are in sync, at least, in partitions that have a leader.
    """
    lines = []
    limit, needed = int(configs["max.message.bytes"]), settings.max_record_bytes
    if name != settings.topic:
        says = f"{name}: max.message.bytes {limit}"
        if limit < needed:
            says += f" is below kafka.max_record_bytes {needed}; raise the one or lower the other"
        lines.append((limit >= needed, says))
    if name == settings.dead_letter_topic and "compact" in configs["cleanup.policy"]:
        says = "cleanup.policy compact drops all but the last dead letter of a key; use delete"
        lines.append((False, f"{name}: {says}"))
    if name == settings.verdict_topic and (end := _end_of_verdicts(configs)):
        says = f"verdicts are gone {end}, also the newest of a product"
        lines.append((False, f"{name}: {says}; set cleanup.policy to compact alone"))
    if (least := int(configs["min.insync.replicas"])) > copies:
        says = f"min.insync.replicas {least} with {copies} replicas refuses every record"
        lines.append((False, f"{name}: {says}; lower the one or add replicas"))
    elif least > in_sync:
        says = f"min.insync.replicas {least} refuses every record of a partition with {in_sync}"
        lines.append((False, f"{name}: {says} in sync; start the brokers that are away"))
    return lines


def _end_of_verdicts(configs: dict[str, str]) -> str | None:
    """When the broker drops a verdict that no newer one has replaced; None if never."""
    # Of "compact,delete" the second half alone is enough.
    if "delete" not in configs["cleanup.policy"]:
        return None
    if (kept_ms := int(configs["retention.ms"])) >= 0:
        return f"after {kept_ms / 86_400_000:g} days"
    if (most := int(configs["retention.bytes"])) >= 0:
        return f"once a partition has {most} bytes"
    return None
