"""Topics of a storm that are made or cut one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
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


@asynccontextmanager
async def denied_writes(settings: KafkaSettings, account: Mapping[str, str]) -> AsyncIterator[None]:
    """Deny an account to write to the verdict topic meanwhile; the rest stays allowed."""
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
        settings.verdict_topic,
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
