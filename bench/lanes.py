"""Many partitions on one worker: how long it takes to own them, and what they cost.

    python -m bench.lanes [--partitions 1,16,64,256] [--json]

`assigned_s` is from the hook's begin to its end: all producers open, start offsets
committed; only then does Faust fetch. Then one record for each partition is judged.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import orjson

from bench.stand import Stand, cluster, usage


async def _one(stand: Stand, count: int) -> dict[str, Any]:
    await stand.create()
    await stand.send(4 * count, 1_000)
    started = time.monotonic()
    worker = await stand.start_worker(env={"STREAM_JUDGE_LOG__LEVEL": "info"})
    try:
        await stand.read_verdicts(4 * count)
        seconds = time.monotonic() - started
        await asyncio.sleep(2.0)
        used = usage(worker.pid)
    finally:
        await stand.stop_worker()
    said = [orjson.loads(line) for line in stand.lines if '"partitions_assigned"' in line]
    return {
        "partitions": count,
        "assigned_s": said[-1]["opening_s"],
        "all_judged_s": round(seconds, 2),
        "rss_mb": round(used.rss_mb, 1),
        "threads": used.threads,
        "sockets": used.sockets,
    }


async def measure(partitions: list[int]) -> list[dict[str, Any]]:
    """A row for each number of partitions."""
    async with cluster() as (bootstrap, triton, _):
        return [
            await _one(Stand(bootstrap, triton, "transactional", count), count)
            for count in partitions
        ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.lanes", description=__doc__)
    parser.add_argument("--partitions", default="1,16,64,256")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = asyncio.run(measure([int(n) for n in given.partitions.split(",")]))
    if given.json:
        print(orjson.dumps(rows).decode())
        return
    print("partitions  assigned s  all judged s  RSS MB  threads  sockets")
    for row in rows:
        print(
            f"{row['partitions']:>10}  {row['assigned_s']:>10.2f}  {row['all_judged_s']:>12.2f}  "
            f"{row['rss_mb']:>6.0f}  {row['threads']:>7}  {row['sockets']:>7}"
        )


if __name__ == "__main__":
    main()
