"""Topics of a storm that are made or cut one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete

from stream_judge.settings import KafkaSettings


async def create_one(settings: KafkaSettings, topic: str, partitions: int) -> None:
    """Make one topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1)])
    finally:
        await admin.close()


async def open_transaction_log(settings: KafkaSettings) -> None:
    """Let the broker make its log of transactions, if it has none yet.

    It takes a busy machine seconds, which no worker's hook has. A broker in use has one.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap_servers,
        transactional_id=f"before-{settings.application}",
    )
    try:
        await producer.start()
    finally:
        await producer.stop()


async def limit_records(settings: KafkaSettings, topics: Iterable[str], most_bytes: int) -> None:
    """Let topics take no record, and no batch of records, that is larger."""
    from confluent_kafka.admin import (
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    limit = ConfigEntry(
        "max.message.bytes", str(most_bytes), incremental_operation=AlterConfigOpType.SET
    )
    wanted = [
        ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[limit]) for topic in topics
    ]
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    for done in admin.incremental_alter_configs(wanted).values():
        await asyncio.to_thread(done.result, 20)


@asynccontextmanager
async def denied_writes(
    settings: KafkaSettings, topic: str, account: Mapping[str, str]
) -> AsyncIterator[None]:
    """Deny an account to write to a topic meanwhile; the rest stays allowed."""
    from confluent_kafka.admin import (
        AclBinding,
        AclBindingFilter,
        AclOperation,
        AclPermissionType,
        AdminClient,
        ResourcePatternType,
        ResourceType,
    )

    about = (
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        f"User:{account['sasl_username']}",
        "*",
    )
    # A topic with any rule is closed to whatever no rule allows; a denial goes before all.
    rules = [
        (*about, AclOperation.ALL, AclPermissionType.ALLOW),
        (*about, AclOperation.WRITE, AclPermissionType.DENY),
    ]
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    try:
        for made in admin.create_acls([AclBinding(*rule) for rule in rules]).values():
            await asyncio.to_thread(made.result, 20)
        yield
    finally:
        for gone in admin.delete_acls([AclBindingFilter(*rule) for rule in rules]).values():
            await asyncio.to_thread(gone.result, 20)


async def delete_source(settings: KafkaSettings, partitions: int) -> None:
    """Delete everything that is on the source topic now, as a retention would."""
    places = [TopicPartition(settings.topic, number) for number in range(partitions)]
    reader = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap_servers, group_id=None)
    await reader.start()
    try:
        ends = await reader.end_offsets(places)
    finally:
        await reader.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_records({tp: RecordsToDelete(before_offset=e) for tp, e in ends.items()})
    finally:
        await admin.close()
