"""`python -m tests.kafka.chaos`: one fault, or all of them.

Prints a JSON object a storm. With `--all` results are appended to a file, and a run that was
stopped goes on behind what the file has; a storm in it that was not sound is not blown again, and
counts as one of this run.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from stream_judge.embedded.triton import EmbeddedTriton
from stream_judge.resources import resource
from tests.kafka.chaos import (  # noqa: F401 - they register their faults
    faults_broker,
    faults_model,
    faults_pictures,
    faults_workers,
)
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.fault import FAULTS, Fault
from tests.kafka.chaos.pictures import PictureServer
from tests.kafka.chaos.storm import Result, Storm, StormOptions

_log = logging.getLogger(__name__)
Key = tuple[str, int, int, str, int]


async def run_fault(
    fault: Fault, options: StormOptions, cluster: StormCluster, log: Path | None = None
) -> Result:
    """One storm on a cluster that is there."""
    pictures = PictureServer()
    await pictures.start()
    try:
        storm = Storm(
            cluster,
            options,
            fault.load(options.records, pictures.port),
            env=fault.env,
            kafka=fault.kafka,
            exits=fault.exits,
            static=fault.static,
            real=EmbeddedTriton(resource("model_repo")) if fault.real_model else None,
            log=log,
        )
        return await storm.run(fault.name, fault.act, create=fault.create)
    finally:
        await pictures.stop()


def _options(fault: Fault, given: Any, seed: int) -> StormOptions:
    return StormOptions(
        records=given.records,
        seed=seed,
        partitions=given.partitions,
        publisher=given.publisher,
        workers=fault.workers,
    )


async def _run(given: Any) -> int:
    names = sorted(FAULTS) if given.all else given.fault
    seeds = list(range(given.seeds)) if given.all else [given.seed]
    wanted = [
        (FAULTS[name], seed)
        for seed in seeds
        for name in names
        if given.publisher.replace("faust", "plain") in FAULTS[name].publishers
    ]
    storms = [(fault, _options(fault, given, seed)) for fault, seed in wanted]
    recorded = _recorded(given.results) if given.all else {}
    done = {key: recorded[key] for key in (_key(*storm) for storm in storms) if key in recorded}
    for key in (key for key, sound in done.items() if not sound):
        print(f"BROKEN {key[0]} seed {key[1]}: recorded in {given.results}", file=sys.stderr)  # noqa: T201
    left = iter([storm for storm in storms if _key(*storm) not in done])
    broken = await asyncio.gather(*(_work(left, given) for _ in range(given.jobs)))
    return 1 if any(broken) or not all(done.values()) else 0


async def _work(storms: Iterator[tuple[Fault, StormOptions]], given: Any) -> int:
    """Take storms while there are any, one at a time; how many were not sound."""
    # Most storms share a cluster; what is put on the way to it, no two jobs may share.
    shared: StormCluster | None = None
    broken = 0
    try:
        for fault, options in storms:
            own = fault.own or fault.nodes > 1 or fault.accounts
            if own or shared is None:
                cluster = StormCluster(fault.nodes, accounts=fault.accounts)
                await cluster.start()
                shared = shared if own else cluster
            else:
                cluster = shared
            try:
                result = await run_fault(fault, options, cluster, given.log)
            except Exception:  # noqa: BLE001 - the edge of one storm
                # The suite's own: the other storms are none the worse for it.
                _log.exception("BROKEN %s seed %d", fault.name, options.seed)
                broken += 1
                continue
            finally:
                if own:
                    await cluster.stop()
            broken += not result.sound
            _tell(result, given)
    finally:
        if shared is not None:
            await shared.stop()
    return broken


def _tell(result: Result, given: Any) -> None:
    found = result.found
    line = orjson.dumps(result.as_dict()).decode()
    if given.all:
        with given.results.open("a") as file:
            file.write(line + "\n")
    if given.json:
        print(line, flush=True)  # noqa: T201
        return
    told = ", ".join(
        [f"{name.replace('_', ' ')} {many}" for name, many in found.broken.items()]
        + result.problems
    )
    print(  # noqa: T201
        f"{'ok    ' if result.sound else 'BROKEN'} {result.fault} seed {result.options.seed}: "
        f"{result.options.records} records, {told or 'no promise broken'}, "
        f"dead letters {found.dead_letters}/{found.dead_letters_expected}, "
        f"hang {result.hang}, recovery {result.recovery_s} s, {result.seconds} s "
        f"{found.examples or ''}",
        flush=True,
    )


def _recorded(path: Path) -> dict[Key, bool]:
    """Whether each storm in a file was sound, every time that it was blown."""
    recorded: dict[Key, bool] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        r = orjson.loads(line)
        key = (r["fault"], r["seed"], r["records"], r["publisher"], r["partitions"])
        # Older files do not say it, and were judged by less.
        recorded[key] = recorded.get(key, True) and r.get("sound", False)
    return recorded


def _key(fault: Fault, options: StormOptions) -> Key:
    return (fault.name, options.seed, options.records, options.publisher, options.partitions)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.kafka.chaos", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="name all faults")
    what.add_argument("--fault", choices=sorted(FAULTS), metavar="NAME", nargs="+")
    what.add_argument("--all", action="store_true", help="every fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="with --all: how many")
    parser.add_argument("--jobs", type=int, default=1, help="storms at a time")
    parser.add_argument("--records", type=int, default=600)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument(
        "--publisher", choices=("transactional", "plain", "faust"), default="transactional"
    )
    parser.add_argument("--results", type=Path, default=Path("chaos.jsonl"))
    parser.add_argument("--log", type=Path, help="folder for the workers' logs")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    given = parser.parse_args()
    if given.jobs < 1:
        parser.error("--jobs: at least 1")
    # The storm's own clients lose their broker, too, and would fill the screen with it.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    if given.list:
        for name in sorted(FAULTS):
            print(f"{name:24} {FAULTS[name].says}")  # noqa: T201
        return 0
    if given.log:
        given.log.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_run(given))


if __name__ == "__main__":
    sys.exit(main())
