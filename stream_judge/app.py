"""The worker: wiring of Faust, pipeline, judge, publisher and web pages."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import faust
import structlog
from faust.transport import drivers
from yarl import URL

from stream_judge import source
from stream_judge.connection import ssl_context
from stream_judge.errors import InferenceError, StreamJudgeError
from stream_judge.events import SourceRecord
from stream_judge.images.loader import ImageLoader
from stream_judge.judge import Judge, Observer
from stream_judge.mapping import Mapping
from stream_judge.metrics import Metrics
from stream_judge.pipeline import Pipeline
from stream_judge.policy import load_policies
from stream_judge.publisher import PlainPublisher
from stream_judge.settings import KafkaSettings, Settings
from stream_judge.triton import ModelSpec, TritonJudge
from stream_judge.verdict import VerdictWriter
from stream_judge.web import serve_pages

_log = structlog.get_logger(__name__)
EXIT_OK, EXIT_FATAL = 0, 70
# A crashed Faust can hang for good; by then the process ends whatever it is doing.
_FATAL_GRACE_S = 8.0
# A stop takes this long beside its drain: a last commit, leaving the group.
_STOP_GRACE_S = 30.0
_SCHEME = "streamjudge"
drivers.TRANSPORTS.aliases[_SCHEME] = "stream_judge.source:SourceTransport"


@asynccontextmanager
async def build_judge(
    settings: Settings, metrics: Metrics, *, observer: Observer | None = None
) -> AsyncIterator[Judge]:
    """A judge with all it needs; waits for the model server as long as it is out."""
    async with AsyncExitStack() as stack:
        client = TritonJudge(settings.triton, on_batch=metrics.batch_rows.observe)
        await client.start()
        stack.push_async_callback(client.close)
        model = await _wait_for_model(client)
        loader = ImageLoader(settings.images, model.pixels)
        await loader.start()
        stack.push_async_callback(loader.close)
        policies = await load_policies(settings.policies, model.pixels, loader.decode)
        judge = Judge(
            mapping=Mapping.read(settings.mapping),
            policies=policies,
            model=model,
            loader=loader,
            client=client,
            writer=VerdictWriter(
                source=f"/stream_judge/{settings.kafka.application}",
                max_record_bytes=settings.kafka.max_record_bytes,
            ),
            window=settings.window,
            metrics=metrics,
            observer=observer,
        )
        await judge.check_policies()
        yield judge


async def _wait_for_model(client: TritonJudge) -> ModelSpec:
    while True:
        try:
            return await client.spec()
        except InferenceError as exc:
            _log.warning("model_server_out", code=exc.code, message=exc.message)
            await asyncio.sleep(1.0)


class Worker:
    """One worker process.

    Args:
        settings: What it does.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._app = build_app(settings.kafka)
        self._pipeline: Pipeline | None = None
        self._stopping = asyncio.Event()
        self._fatal: BaseException | None = None
        self._timers: list[threading.Timer] = []

    async def run(self) -> int:
        """Work until SIGTERM, SIGINT or a fatal error; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        pages = serve_pages(self._settings.web, self._metrics, self._ready, self._refresh)
        publisher = PlainPublisher(self._settings.kafka)
        starting = asyncio.create_task(self._serve(pages, publisher))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done() and self._pipeline is None:
            # Still waiting for the model server: there is nothing to drain.
            starting.cancel()
        results = await asyncio.gather(starting, return_exceptions=True)
        stopping.cancel()
        for timer in self._timers:
            timer.cancel()
        for result in results:
            if isinstance(result, StreamJudgeError):
                raise result
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
        return EXIT_FATAL if self._fatal else EXIT_OK

    async def _serve(self, pages: Any, publisher: PlainPublisher) -> None:
        async with pages, build_judge(self._settings, self._metrics) as judge:
            await publisher.start()
            self._pipeline = Pipeline(
                judge.judge,
                publisher,
                self._settings.window,
                self._metrics,
                on_fatal=self._on_fatal,
            )
            source.install(
                self._app,
                drain=self._drain,
                resume=self._pipeline.resume,
                fatal=self._on_fatal,
                isolation_level=self._settings.kafka.isolation_level,
            )
            self._attach(self._pipeline)
            try:
                async with self._app:
                    _log.info("worker_started", topic=self._settings.kafka.topic)
                    crashed = asyncio.create_task(self._app.wait_until_stopped())
                    stop = asyncio.create_task(self._stopping.wait())
                    await asyncio.wait({crashed, stop}, return_when=asyncio.FIRST_COMPLETED)
                    if self._app.crashed and self._fatal is None:
                        self._on_fatal(RuntimeError("faust crashed"))
                    if self._fatal is None:
                        await self._finish()
                    crashed.cancel()
                    stop.cancel()
            finally:
                await publisher.stop()

    async def _finish(self) -> None:
        """Stop intake, let the window empty, commit: the order of a clean stop."""
        self._end_for_certain(self._settings.window.drain_timeout_s + _STOP_GRACE_S)
        _log.info("worker_stopping", in_flight=self._pipeline and self._pipeline.in_flight)
        self._app.flow_control.suspend()
        left = await self._drain()
        committed = await self._app.consumer.force_commit()
        _log.info("worker_drained", left=left, committed=committed)

    def _attach(self, pipeline: Pipeline) -> None:
        app, kafka = self._app, self._settings.kafka
        topic = app.topic(
            kafka.topic,
            key_serializer="raw",
            value_serializer="raw",
            key_type=bytes,
            value_type=bytes,
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
                generation = message.generation_id
                # The window bounds what the record holds, not these second copies.
                message.value = event.value = None
                await pipeline.submit(
                    record,
                    event.ack,
                    generation,
                    lambda g=generation: g == app.consumer_generation_id,  # type: ignore[misc]  # bound now
                )

        app.agent(topic, name="judge_updates")(judge_updates)

    async def _drain(self) -> int:
        if self._pipeline is None:
            return 0
        return await self._pipeline.drain(self._settings.window.drain_timeout_s)

    def _on_fatal(self, exc: BaseException) -> None:
        if self._fatal is not None:
            return
        self._fatal = exc
        _log.critical("worker_fatal", error=repr(exc), exc_info=exc)
        self._end_for_certain(_FATAL_GRACE_S)
        self._stopping.set()

    def _end_for_certain(self, after_s: float) -> None:
        """End the process then, unless `run` is done; also when the event loop is stuck."""
        timer = threading.Timer(after_s, os._exit, (EXIT_FATAL,))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _ready(self) -> bool:
        return self._fatal is None and self._pipeline is not None and bool(self._app.started)

    def _refresh(self) -> None:
        """Set the gauges that are read, not counted."""
        if self._pipeline is None:
            return
        self._metrics.oldest_in_flight.set(self._pipeline.oldest_age_s())
        if self._app.started:
            # Partitions that went to others leave no stale figure behind.
            self._metrics.lag.clear()
            for tp in self._app.consumer.assignment():
                end = self._app.consumer.highwater(tp)
                done = self._app.consumer._committed_offset.get(tp)
                if tp.topic == self._settings.kafka.topic and end is not None:
                    self._metrics.lag.labels(str(tp.partition)).set(max(0, end - (done or 0)))


def build_app(kafka: KafkaSettings) -> faust.App:
    """The Faust application, without its agent."""
    servers = kafka.bootstrap_servers.split(",")
    credentials: Any = ssl_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        credentials = faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password and kafka.sasl_password.get_secret_value(),
            mechanism=kafka.sasl_mechanism,
            ssl_context=credentials,
        )
    return faust.App(
        kafka.application,
        broker=[URL(f"{_SCHEME}://{server.strip()}") for server in servers],
        broker_credentials=credentials,
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 10,
        broker_rebalance_timeout=kafka.session_timeout_s * 2,
        # A full window does not poll; the group must not take that for a dead member.
        broker_max_poll_interval=24 * 3600.0,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
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


async def run_worker(settings: Settings) -> int:
    """Run one worker to its end; the exit code."""
    return await Worker(settings).run()
