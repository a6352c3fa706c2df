"""What delivery costs: plain Faust, plain and transactional publisher, side by side.

    python -m bench.overhead [--records 4000] [--partitions 1,4,16,64] [--json]

The model server is a stub without latency, so that all that is measured is the way from
record to verdict. Throughput and CPU: records that lie ready, from the first verdict to the
last, by the broker's timestamps. Latency: records that come at a steady pace.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import orjson

from bench.stand import KINDS, Stand, cluster, percentile, usage

_SIZE = 1_000
_WARM, _PACED, _PACE = 50, 500, 50.0


async def _throughput(stand: Stand, program: Path, records: int) -> dict[str, float]:
    await stand.send(records, _SIZE)
    worker = await stand.start_worker(program)
    first: list[float] = []

    def begun(_: int) -> None:
        if not first:
            first.append(usage(worker.pid).cpu_s)

    found = await stand.read_verdicts(records, on_batch=begun)
    cpu_s = usage(worker.pid).cpu_s - first[0]
    times = [at for _, at in found]
    seconds = max(0.001, (max(times) - min(times)) / 1000)
    return {"records_s": round(records / seconds, 1), "cpu_ms": round(cpu_s * 1000 / records, 3)}


async def _latency(stand: Stand, program: Path) -> dict[str, float]:
    await stand.create()
    try:
        await stand.start_worker(program)
        # Whoever is still starting would count as slow.
        await stand.send(1, _SIZE)
        await stand.read_verdicts(1)
        sending = asyncio.create_task(stand.send(_WARM + _PACED, _SIZE, per_second=_PACE))
        found = await stand.read_verdicts(1 + _WARM + _PACED)
        await sending
    finally:
        await stand.stop_worker()
    late = [float(at - sent) for sent, at in sorted(found)[1 + _WARM :]]
    return {"p50_ms": percentile(late, 0.5), "p99_ms": percentile(late, 0.99)}


async def measure(records: int, partitions: list[int]) -> list[dict[str, Any]]:
    """A row for each number of partitions and kind of worker."""
    rows = []
    async with cluster() as (bootstrap, triton):
        for count in partitions:
            for name, program, publisher in KINDS:
                stand = Stand(bootstrap, triton, publisher, count)
                await stand.create()
                try:
                    row = await _throughput(stand, program, records)
                finally:
                    await stand.stop_worker()
                row |= await _latency(Stand(bootstrap, triton, publisher, count), program)
                rows.append({"kind": name, "partitions": count, **row})
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--partitions", default="1,4,16,64")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = asyncio.run(measure(given.records, [int(n) for n in given.partitions.split(",")]))
    if given.json:
        print(orjson.dumps(rows).decode())
        return
    print("partitions  kind              records/s   CPU ms   p50 ms   p99 ms")
    for row in rows:
        print(
            f"{row['partitions']:>10}  {row['kind']:16} {row['records_s']:>10} {row['cpu_ms']:>8} "
            f"{row['p50_ms']:>8.0f} {row['p99_ms']:>8.0f}"
        )


if __name__ == "__main__":
    main()
