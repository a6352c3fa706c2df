"""The Faust application and its one agent: wiring only."""

from __future__ import annotations

from typing import Any

import faust
from faust.auth import OAuthCredentials
from faust.transport import drivers
from yarl import URL

from stream_judge.connection import ssl_context, token_provider
from stream_judge.events import SourceRecord
from stream_judge.pipeline import Pipeline
from stream_judge.settings import KafkaSettings

_SCHEME = "streamjudge"
drivers.TRANSPORTS.aliases[_SCHEME] = "stream_judge.source:SourceTransport"
_METADATA_MS = 30_000


class WorkerApp(faust.App):  # type: ignore[misc]  # faust has no types
    """A Faust application that keeps nothing on disk."""

    def _create_directories(self) -> None:
        # Faust makes folders for tables in the working directory; there are no tables.
        return


def build_app(kafka: KafkaSettings) -> faust.App:
    """The Faust application, without its agent."""
    servers = kafka.bootstrap_servers.split(",")
    return WorkerApp(
        kafka.application,
        broker=[URL(f"{_SCHEME}://{server.strip()}") for server in servers],
        broker_credentials=_credentials(kafka),
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 10,
        broker_rebalance_timeout=kafka.session_timeout_s * 2,
        # Faust's own, and no less than the broker may hold the answer to a join.
        broker_request_timeout=max(90.0, kafka.session_timeout_s * 2),
        # A full window does not poll, for as long as an outage fills it; the group must not take
        # that for a dead member. A worker that is really stuck is the watchdog's to find.
        broker_max_poll_interval=24 * 3600.0,
        broker_commit_interval=1.0,
        consumer_group_instance_id=kafka.instance_id,
        consumer_auto_offset_reset="earliest",
        # So long a source topic, or a partition, that was made after the start is not seen.
        consumer_metadata_max_age_ms=_METADATA_MS,
        # Events, not bytes: what waits here is outside the window's bound.
        stream_buffer_maxsize=32,
        stream_wait_empty=False,
        producer_request_timeout=kafka.request_timeout_s,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        store="memory://",
        datadir=None,
    )


def _credentials(settings: KafkaSettings) -> Any:
    """What Faust connects with; None for a plain connection.

    Raises:
        ConfigError: See `ssl_context`.
    """
    context = ssl_context(settings)
    if not settings.uses_sasl:
        return context
    if settings.sasl_mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=token_provider(settings), ssl_context=context)
    assert settings.sasl_password is not None, "checked with the settings"
    return faust.SASLCredentials(
        username=settings.sasl_username,
        password=settings.sasl_password.get_secret_value(),
        mechanism=settings.sasl_mechanism,
        ssl_context=context,
    )


def attach_agent(app: faust.App, pipeline: Pipeline, kafka: KafkaSettings) -> None:
    """Let the application's one agent hand every record to the pipeline, as raw bytes."""
    topic = app.topic(
        kafka.topic,
        key_serializer="raw",
        value_serializer="raw",
        key_type=bytes,
        value_type=bytes,
        # Inside transactions offsets are committed; Faust then has nothing to keep count of.
        acks=kafka.publisher == "plain",
    )

    async def judge_updates(stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            record = SourceRecord(
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                timestamp_ms=int(message.timestamp * 1000),
                key=message.key,
                value=message.value,
                headers=tuple(message.headers or ()),
            )
            # The window bounds what the record holds, not these second copies.
            message.value = event.value = None
            await pipeline.submit(record, event.ack, message.generation_id)

    app.agent(topic, name="judge_updates")(judge_updates)
