"""What delivery costs: plain Faust, plain and transactional publisher, side by side.

    python -m bench.overhead [--records 4000] [--partitions 1,4,16,64] [--window 64] [--json]

The model server is a stub without latency, so that all that is measured is the way from
record to verdict. Throughput and CPU, the worker's and the broker's: records that lie ready,
from the first verdict to the last, as a `read_committed` reader gets them; CPU for each record
behind the verdicts that were read first, so without the start of the process (plain Faust has
fetched more by then than a window allows: it looks a little cheaper than it is). Latency: records
that come at a steady pace, after every partition has had some, and then a pause, until that reader
has their verdicts. All of it shares the machine: broker, stub, load and reader too.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from bench.stand import KINDS, Stand, cluster, percentile, usage

_SIZE = 1_000
_PACED, _PACE = 500, 50.0
# For each partition, before latency is measured: its first transaction takes longer.
_WARM = 5
# Behind those: what a burst sets off lasts longer than the burst (a fetch that the broker
# keeps, a look that comes after a second), and is no part of a steady pace.
_PAUSE_S = 3.0


async def _throughput(
    stand: Stand, program: Path, records: int, env: Mapping[str, str], broker: int
) -> dict[str, float]:
    await stand.send(records, _SIZE)
    worker = await stand.start_worker(program, env)
    first: list[tuple[int, float, float]] = []

    def begun(count: int) -> None:
        if not first:
            first.append((count, usage(worker.pid).cpu_s, usage(broker).cpu_s))

    found = await stand.read_verdicts(records, on_batch=begun)
    before, worker_before_s, broker_before_s = first[0]
    if before >= len(found):
        raise RuntimeError(f"all {records} verdicts were there at the first look: take more")
    worker_s = usage(worker.pid).cpu_s - worker_before_s
    broker_s = usage(broker).cpu_s - broker_before_s
    times = [at for _, at in found]
    seconds = max(0.001, (max(times) - min(times)) / 1000)
    return {
        "records_s": round(records / seconds, 1),
        "cpu_ms": round(worker_s * 1000 / (len(found) - before), 3),
        "broker_cpu_ms": round(broker_s * 1000 / (len(found) - before), 3),
    }


async def _latency(stand: Stand, program: Path, env: Mapping[str, str]) -> dict[str, float]:
    await stand.create()
    warm = _WARM * stand.partitions
    try:
        await stand.start_worker(program, env)
        # Whoever is still starting would count as slow: the reader, too, which has to look where
        # each partition begins.
        await stand.send(warm, _SIZE)
        async with stand.reader() as reader:
            await reader.read(warm)
            await asyncio.sleep(_PAUSE_S)
            sending = asyncio.create_task(stand.send(_PACED, _SIZE, per_second=_PACE))
            found = await reader.read(_PACED)
            await sending
    finally:
        await stand.stop_worker()
    late = [float(at - sent) for sent, at in found]
    return {"p50_ms": percentile(late, 0.5), "p99_ms": percentile(late, 0.99)}


async def measure(records: int, partitions: list[int], window: int) -> list[dict[str, Any]]:
    """A row for each number of partitions and kind of worker.

    Args:
        records: Records of each throughput measurement.
        partitions: Numbers of partitions.
        window: `window.max_records` of the workers; plain Faust has no such bound.
    """
    rows = []
    env = {"STREAM_JUDGE_WINDOW__MAX_RECORDS": str(window)}
    async with cluster() as (bootstrap, triton, broker):
        for count in partitions:
            for name, program, publisher in KINDS:
                stand = Stand(bootstrap, triton, publisher, count)
                await stand.create()
                try:
                    row = await _throughput(stand, program, records, env, broker)
                finally:
                    await stand.stop_worker()
                row |= await _latency(Stand(bootstrap, triton, publisher, count), program, env)
                rows.append({"kind": name, "partitions": count, "window": window, **row})
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--partitions", default="1,4,16,64")
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    partitions = [int(n) for n in given.partitions.split(",")]
    rows = asyncio.run(measure(given.records, partitions, given.window))
    if given.json:
        print(orjson.dumps(rows).decode())
        return
    print("partitions  kind              records/s   CPU ms   broker   p50 ms   p99 ms")
    for row in rows:
        print(
            f"{row['partitions']:>10}  {row['kind']:16} {row['records_s']:>10} {row['cpu_ms']:>8} "
            f"{row['broker_cpu_ms']:>8} {row['p50_ms']:>8.0f} {row['p99_ms']:>8.0f}"
        )


if __name__ == "__main__":
    main()
