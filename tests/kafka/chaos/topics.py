"""Topics of a storm that are made or cut one by one."""

from __future__ import annotations

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
