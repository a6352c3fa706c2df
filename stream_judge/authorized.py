"""What a broker says this account may do with a topic or a group, without doing it (KIP-430).

aiokafka has no requests that ask for it, or drops the answer; these two have the last
versions without tagged fields, which brokers from 2.3 on take.
"""

from __future__ import annotations

from typing import Any

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Bytes, Int16, Int32, Schema, String

#: Bits of Kafka's AclOperation.
_BITS = {"Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}
# What stands in the answer where the broker does not say.
_UNSAID = -(2**31)
_TEXT = String("utf-8")


class _TopicsAnswer(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT))),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", _TEXT),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _Topics(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _TopicsAnswer
    SCHEMA = Schema(
        ("topics", Array(_TEXT)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _GroupsAnswer(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 15
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "groups",
            Array(
                ("error_code", Int16),
                ("group", _TEXT),
                ("state", _TEXT),
                ("protocol_type", _TEXT),
                ("protocol", _TEXT),
                (
                    "members",
                    Array(
                        ("member_id", _TEXT),
                        ("client_id", _TEXT),
                        ("client_host", _TEXT),
                        ("member_metadata", Bytes),
                        ("member_assignment", Bytes),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
    )


class _Groups(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = _GroupsAnswer
    SCHEMA = Schema(("groups", Array(_TEXT)), ("include_authorized_operations", Boolean))


class _InOneVersion:
    """A request as aiokafka's connections prepare one, in the only version it has."""

    def __init__(self, struct: Any) -> None:
        self._struct = struct

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        """The request, if the broker takes its version."""
        lowest, highest = versions.get(self._struct.API_KEY, (0, -1))
        if not lowest <= self._struct.API_VERSION <= highest:
            raise IncompatibleBrokerVersion(f"the broker does not take {self._struct!r}")
        return self._struct


async def topic_operations(admin: Any, topic: str) -> frozenset[str]:
    """The operations on a topic that are allowed; it is not made if it is not there.

    Args:
        admin: A started AIOKafkaAdminClient.
        topic: Its name.

    Raises:
        KafkaError: The topic is not there, or the broker does not say.
    """
    request = _InOneVersion(_Topics([topic], False, False, True))
    answer = (await admin._send_request(request)).to_object()["topics"][0]
    if answer["error_code"] == TopicAuthorizationFailedError.errno:
        return frozenset()
    return _operations(answer)


async def group_operations(admin: Any, group: str) -> frozenset[str]:
    """The operations on a group that are allowed, whether or not it has members.

    Args:
        admin: A started AIOKafkaAdminClient.
        group: Its name.

    Raises:
        KafkaError: There is no coordinator yet, or the broker does not say.
    """
    try:
        node = await admin.find_coordinator(group)
    except GroupAuthorizationFailedError:
        return frozenset()
    request = _InOneVersion(_Groups([group], True))
    return _operations((await admin._send_request(request, node)).to_object()["groups"][0])


def _operations(answer: dict[str, Any]) -> frozenset[str]:
    if answer["error_code"]:
        raise for_code(answer["error_code"])()
    bits = answer["authorized_operations"]
    if bits == _UNSAID:
        raise IncompatibleBrokerVersion("the broker does not say what is allowed")
    return frozenset(name for name, bit in _BITS.items() if bits >> bit & 1)
