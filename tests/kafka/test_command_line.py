"""The same questions, asked as an operator asks them: through `stream-judge`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from stream_judge.processes import ChildProcess, free_port
from stream_judge.settings import KafkaSettings
from stream_judge.testing import kafka_environment
from stream_judge.topics import check_topics, create_topics
from tests.kafka.log import send
from tests.kafka.test_operators import publish_dead_letters, source

COMMAND = [sys.executable, "-m", "stream_judge"]


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    lines: list[str]


async def ask(settings: KafkaSettings, *arguments: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=os.environ | kafka_environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Said(process.returncode, out.decode().splitlines())


def places(said: Said) -> Sequence[str]:
    assert said.code == 0
    return [orjson.loads(line)["source"] for line in said.lines]


async def test_dead_letters_are_listed_shown_and_redriven(settings: KafkaSettings) -> None:
    values = [b"{not json", b"\xff\xfe"]
    await send(settings, [(b"k", value, 0) for value in values])
    await publish_dead_letters(settings, [source(settings, i, v) for i, v in enumerate(values)])
    first, second = f"{settings.topic}/0/0", f"{settings.topic}/0/1"

    assert places(await ask(settings, "dead-letters", "list", "--json")) == [first, second]
    shown = await ask(settings, "dead-letters", "show", "0/0")
    letter = orjson.loads("\n".join(shown.lines))
    assert letter["value"] == "{not json"
    assert ["shop", "north"] in letter["headers"]
    assert (await ask(settings, "dead-letters", "show", "7/0")).code == 2

    tried = await ask(settings, "dead-letters", "redrive", "--dry-run")
    assert tried.lines == [f"2 dead letters would go to {settings.topic}"]
    assert (await ask(settings, "explain", f"{settings.topic}/0/2")).lines[0].count("not_there")
    done = await ask(settings, "dead-letters", "redrive", "--code", "bad_event")
    assert done == Said(0, [f"2 dead letters went to {settings.topic}"])
    waiting = await ask(settings, "explain", f"{settings.topic}/0/2", "--json")
    assert orjson.loads(waiting.lines[0])["state"] == "in_lag"
    known = await ask(settings, "explain", second, "--json")
    assert known.code == 0
    assert orjson.loads(known.lines[0])["state"] == "dead_letter"


async def test_a_broker_in_the_foreground_ends_when_it_is_told(needs_kafka: None) -> None:
    codes = await asyncio.gather(*map(exit_code_after, (signal.SIGTERM, signal.SIGINT)))
    assert codes == [0, 0]


async def test_three_brokers_in_the_foreground_keep_three_copies(needs_kafka: None) -> None:
    assert await exit_code_after(signal.SIGTERM, nodes=3) == 0


async def exit_code_after(number: signal.Signals, nodes: int = 1) -> int:
    """Of brokers that have served, after a signal."""
    port = free_port()
    lines: list[str] = []
    command = [*COMMAND, "kafka", "--port", str(port), "--nodes", str(nodes)]
    brokers = ChildProcess(command, env=None, on_line=lines.append)
    await brokers.start()
    try:
        for _ in range(600):
            if any("kafka_ready" in line for line in lines):
                break
            await asyncio.sleep(0.1)
        else:
            pytest.fail("\n".join(lines))
        settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}")
        await create_topics(settings, 1, nodes)
        await send(settings, [(b"k", b"1", 0)])
        said = [f.detail for f in await check_topics(settings) if f.status == "ok"]
        assert f"{settings.topic}: 1 partitions, {nodes} replicas" in said
        os.kill(brokers.pid, number)
        return await asyncio.wait_for(brokers.wait(), 60)
    finally:
        await brokers.stop(5.0)


async def test_the_demo_runs_on_a_real_broker_with_transactions(
    needs_kafka: None, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    # The shipped model and a Triton of its own: it needs no settings.
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("demo", "--kafka", "--events", "24", "--json", "--report", str(report)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 240)
    assert process.returncode == 0, err.decode()
    found = orjson.loads(out)
    assert (found["events"], found["lost"], found["duplicates"]) == (24, 0, 0)
    assert (found["order_breaks"], found["expected"]) == (0, 24)
    assert report.stat().st_size > 0
