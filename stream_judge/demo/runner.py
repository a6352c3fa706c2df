"""Starts every part as a process of its own, feeds updates, reads outcomes back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stream_judge.catalogue.events import TOO_LARGE_BYTES, make_catalogue
from stream_judge.demo.feed import Fed, Place, feed, read_events
from stream_judge.demo.readback import Seen, read_back
from stream_judge.demo.report import write_report
from stream_judge.demo.summary import Summary, summarise
from stream_judge.embedded.broker import EmbeddedBroker
from stream_judge.embedded.kafka import EmbeddedKafka
from stream_judge.embedded.triton import EmbeddedTriton, check_platform
from stream_judge.errors import EnvironmentProblem, StreamJudgeError
from stream_judge.processes import ChildProcess, free_port
from stream_judge.resources import resource
from stream_judge.settings import KafkaSettings
from stream_judge.topics import create_topics

SOURCE, VERDICTS, DEAD_LETTERS = "product-updates", "relevance-verdicts", "relevance-dead-letters"
_PARTITIONS = {SOURCE: 4, VERDICTS: 4, DEAD_LETTERS: 1}
_STALL_S = 60.0
_SETTLE_S = 1.0
_DISK_BYTES = 500_000_000
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """A demo run.

    Attributes:
        events: Product updates.
        seed: Seed of the drawn shop.
        keep: Keep the run's folder (shop, logs).
        report: Where the page goes.
        repository: Model repository; None for the one that ships.
        kafka: On a real Apache Kafka, with transactions, instead of the mock broker.
    """

    events: int = 120
    seed: int = 7
    keep: bool = False
    report: Path = Path("demo-report.html")
    repository: Path | None = None
    kafka: bool = False


@dataclass(slots=True)
class Progress:
    """What a live display may show; grows while the demo runs."""

    fed: dict[Place, Fed] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    done: set[Place] = field(default_factory=set)
    truth: list[dict[str, Any]] = field(default_factory=list)

    def on_fed(self, entry: Fed) -> None:
        """Note an update that was published."""
        self.fed[entry.place] = entry

    def on_seen(self, record: Seen) -> None:
        """Note a record that was read back."""
        self.seen.append(record)
        self.done.add(record.place)


async def run_demo(options: DemoOptions, progress: Progress, *, say: Say) -> Summary:
    """Run the whole system once; everything it started has ended when it returns or raises.

    Args:
        options: What to run.
        progress: Filled while it runs.
        say: Receives one line for every step.

    Raises:
        EnvironmentProblem: The machine lacks something, or the report cannot be written.
        StreamJudgeError: A part ended by itself, or nothing came out for a minute.
    """
    started = time.monotonic()
    check_platform()
    await asyncio.to_thread(_check_report, options.report)
    folder = Path(tempfile.mkdtemp(prefix="stream-judge-demo-"))
    try:
        free = shutil.disk_usage(folder).free
        if free < _DISK_BYTES:
            raise EnvironmentProblem(f"{folder}: {free // 10**6} MB free, the demo needs 500")
        say(f"drawing {options.events} products (seed {options.seed})")
        await asyncio.to_thread(make_catalogue, options.events, options.seed, folder)
        lines = (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines()
        progress.truth.extend(map(json.loads, lines))
        async with AsyncExitStack() as stack:
            parts = await _start_parts(options, folder, stack, say)
            setup_s = time.monotonic() - started
            say(f"ready after {setup_s:.1f} s; judging")
            await _judge_all(parts, folder, progress)
            await parts.worker.stop(grace_s=30.0)
            if parts.worker.exit_code != 0:
                raise _ended("the worker", parts.worker.exit_code or 0, folder)
        fed = sorted(progress.fed.values(), key=lambda entry: entry.line)
        summary = summarise(fed, progress.seen, progress.truth, setup_s)
        write_report(
            options.report, summary, fed, progress.seen, progress.truth, folder / "pictures"
        )
        return summary
    finally:
        if options.keep:
            say(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _check_report(path: Path) -> None:
    """Find out whether the page can be written before the run whose figures it holds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open("a").close()
        if is_new:
            path.unlink()
    except OSError as exc:
        raise EnvironmentProblem(f"report {path}: {exc.strerror}") from exc


class _Part(Protocol):
    async def wait(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Parts:
    """What runs.

    Attributes:
        bootstrap: The broker's address.
        base_url: Of the picture server.
        worker: The worker's process.
        running: Everything that has to go on running, by name.
    """

    bootstrap: str
    base_url: str
    worker: ChildProcess
    running: Mapping[str, _Part]


async def _start_parts(
    options: DemoOptions, folder: Path, stack: AsyncExitStack, say: Say
) -> _Parts:
    broker = EmbeddedKafka() if options.kafka else EmbeddedBroker(_PARTITIONS)
    stack.push_async_callback(broker.stop)
    triton_log = stack.enter_context((folder / "triton.log").open("w", encoding="utf-8"))
    triton = EmbeddedTriton(
        options.repository or resource("model_repo"),
        on_line=lambda line: print(line, file=triton_log, flush=True),
    )
    stack.push_async_callback(triton.stop)
    say("starting broker, Triton, picture server and worker")
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def on_line(line: str) -> None:
        if line.startswith("port ") and not port.done():
            port.set_result(int(line.removeprefix("port ")))

    pictures = ChildProcess(
        [sys.executable, "-m", "stream_judge.catalogue.server", str(folder)],
        env=None,
        on_line=on_line,
    )
    stack.push_async_callback(pictures.stop, 2.0)
    await asyncio.gather(broker.start(), triton.start(), pictures.start())
    if options.kafka:
        await create_topics(KafkaSettings(bootstrap_servers=broker.bootstrap), 4, 1)
    web_port, picture_port = free_port(), await asyncio.wait_for(port, 20)
    worker_log = stack.enter_context((folder / "worker.log").open("w", encoding="utf-8"))
    worker = ChildProcess(
        [sys.executable, "-m", "stream_judge", "worker"],
        env=_worker_environment(broker.bootstrap, triton.grpc_url, web_port, picture_port)
        | {"STREAM_JUDGE_KAFKA__PUBLISHER": "transactional" if options.kafka else "plain"},
        on_line=lambda line: print(line, file=worker_log, flush=True),
    )
    stack.push_async_callback(worker.stop, 10.0)
    await worker.start()
    await _wait_ready(worker, web_port, folder / "worker.log")
    others = {"the broker": broker, "Triton": triton, "the picture server": pictures}
    base_url = f"http://127.0.0.1:{picture_port}"
    return _Parts(broker.bootstrap, base_url, worker, {"the worker": worker, **others})


def _worker_environment(
    bootstrap: str, triton_url: str, web_port: int, picture_port: int
) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("STREAM_JUDGE_")}
    return inherited | {
        "STREAM_JUDGE_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
        "STREAM_JUDGE_KAFKA__SESSION_TIMEOUT_S": "10",
        "STREAM_JUDGE_TRITON__URL": triton_url,
        "STREAM_JUDGE_WEB__PORT": str(web_port),
        # The shop's pictures are on loopback here; Triton and the worker's own pages are too, and
        # no listing's URL reaches those.
        "STREAM_JUDGE_IMAGES__ALLOWED_NETWORKS": '["127.0.0.1/32"]',
        "STREAM_JUDGE_IMAGES__ALLOWED_PORTS": f"[80, 443, {picture_port}]",
        "STREAM_JUDGE_IMAGES__MAX_BYTES": str(TOO_LARGE_BYTES),
    }


async def _wait_ready(worker: ChildProcess, port: int, log: Path) -> None:
    for _ in range(600):
        if worker.exit_code is not None:
            last = await asyncio.to_thread(_last_line, log)
            raise StreamJudgeError(f"the worker did not start: {last}")
        if await asyncio.to_thread(_is_ready, port):
            return
        await asyncio.sleep(0.1)
    last = await asyncio.to_thread(_last_line, log)
    raise StreamJudgeError(f"the worker was not ready within a minute; its log ends with: {last}")


def _last_line(log: Path) -> str:
    return " ".join(log.read_text(encoding="utf-8").splitlines()[-1:])


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def _judge_all(parts: _Parts, folder: Path, progress: Progress) -> None:
    """Feed everything and wait for its outcomes, and a little longer for surplus ones."""
    events = await asyncio.to_thread(read_events, folder / "events.jsonl", parts.base_url)
    outputs = {name: n for name, n in _PARTITIONS.items() if name != SOURCE}
    reading = read_back(parts.bootstrap, outputs, DEAD_LETTERS, on_seen=progress.on_seen)
    feeding = feed(
        parts.bootstrap,
        SOURCE,
        events,
        finished=lambda: len(progress.done),
        on_fed=progress.on_fed,
    )
    try:
        async with asyncio.TaskGroup() as group:
            helpers = [group.create_task(reading)]
            for name, part in parts.running.items():
                helpers.append(group.create_task(_keep_running(name, part, folder)))
            feeder = group.create_task(feeding)
            await _until_done(progress, len(events))
            if not feeder.done():
                raise StreamJudgeError(
                    f"nothing came out for {_STALL_S:.0f} s: {len(progress.done)} of "
                    f"{len(events)} updates have an outcome; --keep keeps the logs"
                )
            await asyncio.sleep(_SETTLE_S)
            for helper in helpers:
                helper.cancel()
    except ExceptionGroup as several:
        # The first one is the cause; what is else in the group came of it.
        raise several.exceptions[0] from None


async def _until_done(progress: Progress, events: int) -> None:
    """Until everything has come out, or nothing has for a while: that is counted as lost."""
    last, since = -1, time.monotonic()
    while len(progress.done) < events:
        await asyncio.sleep(0.1)
        if len(progress.done) != last:
            last, since = len(progress.done), time.monotonic()
        elif time.monotonic() - since > _STALL_S:
            return


async def _keep_running(name: str, part: _Part, folder: Path) -> None:
    raise _ended(name, await part.wait(), folder)


def _ended(name: str, code: int, folder: Path) -> StreamJudgeError:
    said = _last_line(folder / "worker.log") if name == "the worker" else ""
    tail = f"; its log ends with: {said}" if said else ""
    return StreamJudgeError(f"{name} ended with exit code {code}{tail}; --keep keeps the logs")
