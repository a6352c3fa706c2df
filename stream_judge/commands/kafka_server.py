"""`stream-judge kafka`: a real Apache Kafka in the foreground."""

from __future__ import annotations

import structlog

from stream_judge.commands.foreground import serve
from stream_judge.embedded.kafka import EmbeddedKafka, KafkaOptions
from stream_judge.logs import set_up_logs
from stream_judge.settings import LogSettings


async def run_kafka(options: KafkaOptions) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean stop, 1 if a node ended by itself."""
    set_up_logs(LogSettings(format="console"))
    log = structlog.get_logger("kafka")
    cluster = EmbeddedKafka(options, on_line=lambda line: log.info("kafka", line=line))
    return await serve(
        cluster,
        cluster.start,
        on_ready=lambda: log.info("kafka_ready", bootstrap_servers=cluster.bootstrap),
        on_starting=lambda taken_s: log.info("kafka_starting", taken_s=round(taken_s)),
    )
