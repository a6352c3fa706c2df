"""One worker process: it starts every part, drains and stops them, and ends for certain."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from stream_judge import exits, source
from stream_judge.app import attach_agent, build_app
from stream_judge.assembly import build_judge
from stream_judge.backlog import Backlog
from stream_judge.errors import StreamJudgeError
from stream_judge.metrics import Metrics
from stream_judge.outage import Outages
from stream_judge.pipeline import Pipeline
from stream_judge.publisher import Partition, PlainPublisher, Publisher
from stream_judge.settings import KafkaSettings, Settings, unknown_variables
from stream_judge.transactions import TransactionalPublisher
from stream_judge.watchdog import Watchdog
from stream_judge.web import serve_pages

_log = structlog.get_logger(__name__)
# A crashed Faust can hang for good; by then the process ends whatever it is doing.
_FATAL_GRACE_S = 8.0
# A stop takes this long beside its drain: a last commit, leaving the group.
_STOP_GRACE_S = 30.0
# Of a rebalance hook's time, what draining may take: opening and committing need the rest.
_DRAIN_SHARE = 0.6


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
        self._outages = Outages(self._on_outage)
        self._watchdog: Watchdog | None = None

    async def run(self) -> int:
        """Work until SIGTERM, SIGINT or a fatal error; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        pages = serve_pages(self._settings.web, self._metrics, self._unready, self._refresh)
        publisher = make_publisher(self._settings.kafka, self._outages, self._metrics)
        starting = asyncio.create_task(self._serve(pages, publisher))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done() and self._pipeline is None:
            # Still waiting for the model server: there is nothing to drain.
            starting.cancel()
        results = await asyncio.gather(starting, return_exceptions=True)
        stopping.cancel()
        if self._fatal is None:
            # After a fatal error they stay: threads that still wait for a name server would
            # keep the interpreter from ending.
            for timer in self._timers:
                timer.cancel()
        for result in results:
            if result is None or isinstance(result, asyncio.CancelledError):
                continue
            if isinstance(result, StreamJudgeError) or not isinstance(result, Exception):
                raise result
            # A defect, perhaps only in what it does to stop.
            self._on_fatal(result)
        return exits.exit_code(self._fatal)

    async def _serve(self, pages: Any, publisher: Publisher) -> None:
        judging = build_judge(self._settings, self._metrics, outages=self._outages)
        async with pages, judging as judge:
            await publisher.start()
            self._pipeline = Pipeline(
                judge.judge,
                self._settings.window,
                self._metrics,
                on_fatal=self._on_fatal,
                lost_grace_s=self._settings.kafka.session_timeout_s,
            )
            source.install(self._app, self._hooks(self._pipeline, publisher))
            attach_agent(self._app, self._pipeline, self._settings.kafka)
            try:
                async with self._app, self._watched(self._pipeline, publisher):
                    _log.info("worker_started", topic=self._settings.kafka.topic)
                    crashed = asyncio.create_task(self._app.wait_until_stopped())
                    stop = asyncio.create_task(self._stopping.wait())
                    await asyncio.wait({crashed, stop}, return_when=asyncio.FIRST_COMPLETED)
                    if self._app.crashed and self._fatal is None:
                        self._on_fatal(RuntimeError(f"faust crashed: {self._app.crash_reason!r}"))
                    if self._fatal is None:
                        await self._finish()
                    crashed.cancel()
                    stop.cancel()
            finally:
                # A rebalance that met the stop may have opened lanes once more.
                try:
                    await self._pipeline.drain(0)
                finally:
                    await publisher.stop()

    @asynccontextmanager
    async def _watched(self, pipeline: Pipeline, publisher: Publisher) -> AsyncIterator[None]:
        backlog = Backlog(self._settings.kafka, self._positions, self._outages)
        self._watchdog = Watchdog(
            self._settings.window.stall_limit_s,
            # One stuck record is a stall, too, while other partitions go on.
            progress=lambda: pipeline.oldest() or pipeline.last_progress,
            busy=lambda: pipeline.in_flight > 0 or backlog.unread,
            outage=lambda: bool(self._outages.names),
            on_stall=self._on_fatal,
            stuck=lambda: oldest[1] if (oldest := pipeline.oldest()) else None,
        )
        parts = (backlog.run(), self._watchdog.run(), publisher.watch(pipeline.need_tending))
        watching = [asyncio.create_task(part) for part in parts]
        for task in watching:
            task.add_done_callback(self._on_watched)
        try:
            yield
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    def _on_watched(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # A worker that nobody watches could be stuck for good.
            self._on_fatal(error)

    async def _positions(self) -> dict[Partition, int]:
        """The next offset that is read, of each partition owned now."""
        found = await self._app.consumer.positions()
        topic = self._settings.kafka.topic
        # Before its first seek a partition counts as unread, as long as that takes.
        return {place: position or 0 for place, position in found.items() if place[0] == topic}

    def _hooks(self, pipeline: Pipeline, publisher: Publisher) -> source.Hooks:
        kafka = self._settings.kafka
        deadline_s = kafka.session_timeout_s / 2
        patience_s = min(self._settings.window.drain_timeout_s, _DRAIN_SHARE * deadline_s)

        async def assign(numbers: set[int], generation: int, assignment: int) -> None:
            started = time.monotonic()
            self._metrics.rebalances.inc()
            partitions = [(kafka.topic, number) for number in sorted(numbers)]
            sinks = await publisher.open(partitions, generation)
            pipeline.assign(sinks, assignment)
            _log.info(
                "partitions_assigned",
                partitions=len(sinks),
                generation=generation,
                opening_s=round(time.monotonic() - started, 3),
            )

        return source.Hooks(
            topic=kafka.topic,
            drain=lambda: pipeline.drain(patience_s),
            assign=assign,
            fatal=self._on_fatal,
            deadline_s=deadline_s,
            isolation_level=kafka.isolation_level,
            commits=kafka.publisher == "plain",
        )

    async def _finish(self) -> None:
        """Stop intake, let the window empty, commit: the order of a clean stop."""
        self._end_for_certain(self._settings.window.drain_timeout_s + _STOP_GRACE_S)
        _log.info("worker_stopping", in_flight=self._pipeline and self._pipeline.in_flight)
        self._app.flow_control.suspend()
        left = await self._drain()
        committed = await self._app.consumer.force_commit()
        _log.info("worker_drained", left=left, committed=committed)

    async def _drain(self) -> int:
        if self._pipeline is None:
            return 0
        return await self._pipeline.drain(self._settings.window.drain_timeout_s)

    def _on_fatal(self, exc: BaseException) -> None:
        if self._fatal is not None:
            return
        self._fatal = exc
        # First, because the log may be what is stuck.
        self._end_for_certain(_FATAL_GRACE_S)
        _log.critical("worker_fatal", error=repr(exc), exc_info=exc)
        self._stopping.set()

    def _end_for_certain(self, after_s: float) -> None:
        """End the process then, unless `run` is done; also when the event loop is stuck."""
        timer = threading.Timer(after_s, os._exit, (exits.exit_code(self._fatal) or exits.FATAL,))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _on_outage(self, name: str, out: bool) -> None:
        self._metrics.circuit_open.labels(name).set(out)
        _log.warning("outage_began" if out else "outage_ended", dependency=name)

    def _unready(self) -> str | None:
        """Why it is not ready; None if it is. An outage that is known leaves it ready."""
        if self._fatal is not None:
            return f"fatal: {exits.exit_code(self._fatal)}"
        if self._watchdog is None or not self._app.started:
            out = ", ".join(self._outages.names)
            return f"waiting for {out}" if out else "starting"
        stalled = self._watchdog.stalled
        return stalled and f"stalled: {stalled}"

    def _refresh(self) -> None:
        """Set the gauges that are read, not counted."""
        if self._pipeline is None:
            return
        self._metrics.oldest_in_flight.set(self._pipeline.oldest_age_s())
        if self._app.started:
            # Partitions that went to others leave no stale figure behind.
            self._metrics.lag.clear()
            lags = self._app.consumer.lag(self._pipeline.positions())
            for (topic, number), lag in lags.items():
                if topic == self._settings.kafka.topic:
                    self._metrics.lag.labels(str(number)).set(lag)


def make_publisher(kafka: KafkaSettings, outages: Outages, metrics: Metrics) -> Publisher:
    """The publisher that the settings name."""
    plain = kafka.publisher == "plain"
    return PlainPublisher(kafka) if plain else TransactionalPublisher(kafka, outages, metrics)


async def run_worker(settings: Settings) -> int:
    """Run one worker to its end; the exit code."""
    for name in unknown_variables(os.environ):
        _log.warning("unknown_setting", variable=name, message="no such setting: it does nothing")
    return await Worker(settings).run()
