"""Whether a worker's memory stays flat over many records, and over large ones.

    python -m bench.memory [--json] [--small 200000] [--large 2000]

Resident memory at each tenth of the way, first for records of 10 kB, then of 1 MB.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import orjson

from bench.stand import Stand, cluster, usage

_TENTHS = 10


async def _run(stand: Stand, count: int, size: int) -> list[float]:
    await stand.create()
    sending = asyncio.create_task(stand.send(count, size))
    worker = await stand.start_worker()
    marks: list[float] = []

    def note(done: int) -> None:
        while done * _TENTHS >= (len(marks) + 1) * count:
            marks.append(round(usage(worker.pid).rss_mb, 1))

    try:
        await stand.read_verdicts(count, on_batch=note)
        await sending
    finally:
        sending.cancel()
        await stand.stop_worker()
    return marks


async def measure(small: int, large: int) -> list[dict[str, Any]]:
    """A row for each size."""
    rows = []
    async with cluster() as (bootstrap, triton, _):
        for count, size in ((small, 10_000), (large, 990_000)):
            stand = Stand(bootstrap, triton, "transactional", 4)
            rows.append({"records": count, "bytes": size, "rss_mb": await _run(stand, count, size)})
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--small", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=2_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = asyncio.run(measure(given.small, given.large))
    if given.json:
        print(orjson.dumps(rows).decode())
        return
    for row in rows:
        print(f"{row['records']} records of {row['bytes']} bytes, RSS MB at each tenth:")
        print("  " + "  ".join(f"{mark:.0f}" for mark in row["rss_mb"]))


if __name__ == "__main__":
    main()
