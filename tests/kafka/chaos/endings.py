"""How workers ended: by what the suite or the fault did to them, or for no reason it knows."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping

import orjson

from tests.kafka.chaos.crew import StormWorker

#: Exit codes that a fault explains; of each, what the log of such a worker has to say.
Codes = Mapping[int, str]


def unexplained(workers: Iterable[StormWorker], codes: Codes) -> list[str]:
    """Workers whose end nothing explains, in words.

    Args:
        workers: All of a storm, when it is over.
        codes: What the fault explains, beside 0 and the signals that the suite sent.
    """
    return [
        f"worker {worker.number} ended with {worker.process.exit_code}: {_last_words(worker)}"
        for worker in workers
        if not _is_explained(worker, codes)
    ]


def _is_explained(worker: StormWorker, codes: Codes) -> bool:
    code = worker.process.exit_code
    if code == -signal.SIGKILL:
        return signal.SIGKILL in worker.signals or bool(worker.said("accident kill at"))
    if code == -signal.SIGTERM:
        # Later it has a handler, and ends in good order.
        return signal.SIGTERM in worker.signals and not worker.partitions
    return code == 0 or (code in codes and bool(worker.said(codes[code])))


def _last_words(worker: StormWorker) -> str:
    """Why it ended, as its log says."""
    fatal = [line for line in worker.lines if '"event": "worker_fatal"' in line]
    if fatal:
        return str(orjson.loads(fatal[-1]).get("error"))[:300]
    return worker.lines[-1][:300] if worker.lines else "it logged nothing"
