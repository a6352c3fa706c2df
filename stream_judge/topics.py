"""The Kafka topics: making them, and holding them against what the worker needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from stream_judge.connection import ask_any, client_options, connect
from stream_judge.errors import PublishError
from stream_judge.settings import KafkaSettings

_MONTH_MS = 30 * 24 * 3600 * 1000


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
        PublishError: No broker, or it refuses.
    """
    client = await _admin(settings)
    try:
        there = set(await client.list_topics())
        lines = []
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
                    raise PublishError(f"{wanted.name}: {for_code(code).__name__} {message}")
            lines.append(f"{wanted.name}: made with {wanted.partitions} partitions")
        return lines
    except KafkaError as exc:
        raise PublishError(f"the broker refuses: {exc!r}") from exc
    finally:
        await client.close()


async def check_topics(settings: KafkaSettings) -> list[tuple[bool, str]]:
    """Whether each topic is as needed, with a line that says what to do.

    Raises:
        PublishError: No broker, or it refuses.
    """
    client = await _admin(settings)
    try:
        lines: list[tuple[bool, str]] = []
        for wanted in _wanted(settings, 1):
            # Whoever only looks must not make a topic; that is the client's default.
            asked = MetadataRequest([wanted.name], allow_auto_topic_creation=False)
            (topic,) = (await ask_any(client._client, asked)).to_object()["topics"]
            if topic["error_code"]:
                lines.append((False, _missing(wanted.name, topic["error_code"])))
                continue
            parts = topic["partitions"]
            copies = min((len(part["replicas"]) for part in parts), default=0)
            lines.append((True, f"{wanted.name}: {len(parts)} partitions, {copies} replicas"))
            lines += await _check_configs(client, wanted, settings, copies)
        return lines
    except KafkaError as exc:
        raise PublishError(f"the broker went away, or refuses: {exc!r}") from exc
    finally:
        await client.close()


def _missing(name: str, code: int) -> str:
    if code == TopicAuthorizationFailedError.errno:
        return f"{name}: this account may not see it; `stream-judge doctor` names the right"
    return f"{name}: missing; run `stream-judge topics create`"


async def _check_configs(
    client: Any, wanted: _Wanted, settings: KafkaSettings, copies: int
) -> list[tuple[bool, str]]:
    keys = (
        "max.message.bytes",
        "cleanup.policy",
        "retention.ms",
        "retention.bytes",
        "min.insync.replicas",
    )
    resource = ConfigResource(ConfigResourceType.TOPIC, wanted.name, dict.fromkeys(keys))
    try:
        (answer,) = await client.describe_configs([resource])
        if (code := answer.resources[0][0]) == TopicAuthorizationFailedError.errno:
            raise for_code(code)("DescribeConfigs is missing")
        found = {entry[0]: entry[1] for r in answer.resources for entry in r[4]}
        configs = {key: str(found[key]) for key in keys}
    except (KafkaError, KeyError, ValueError, IndexError, TypeError) as exc:
        says = f"{wanted.name}: this broker does not tell sizes ({type(exc).__name__})"
        if isinstance(exc, TopicAuthorizationFailedError):
            says = f"{wanted.name}: sizes are unknown: this account lacks DescribeConfigs on it"
        return [(True, says)]
    return judge_configs(wanted.name, configs, settings, copies)


def judge_configs(
    name: str, configs: dict[str, str], settings: KafkaSettings, copies: int
) -> list[tuple[bool, str]]:
    """What a topic's configuration means for the worker, a line each.

    Args:
        name: The topic.
        configs: Its `max.message.bytes`, `cleanup.policy`, `retention.ms` (milliseconds, -1
            for ever), `retention.bytes` (of a partition, -1 for any number) and
            `min.insync.replicas`, as the broker writes them.
        settings: Which topic is which, and the largest record that is sent.
        copies: Replicas that its partitions have at least.
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
