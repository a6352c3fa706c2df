"""The rows of a listing: one question to the model server for each of its pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from stream_judge.errors import (
    BadOutputError,
    BrokenInvariantError,
    ConfigError,
    InferenceError,
    PolicyError,
)
from stream_judge.metrics import Metrics
from stream_judge.outage import Circuit, Outages
from stream_judge.policy import Policy
from stream_judge.served_model import ServedModel
from stream_judge.serving.bundle import MAX_BYTES
from stream_judge.settings import WindowSettings
from stream_judge.triton import ModelSpec, PolicyBundle, RowResult

_log = structlog.get_logger(__name__)
Result = TypeVar("Result")
# Row statuses that are the listing's own fault; servers that cut no text say `text_too_long`.
LISTING_FAULTS = frozenset({"text_empty", "text_too_long"})
# Those of a server that fails: no row of ours is at fault.
_SERVER_FAULTS = frozenset({"internal", "bad_embeddings"})
_PROBE_TEXT = "A product."
# Rows of a listing travel together as a rule: so often in a row, only servers of several
# models behind one address can answer them.
_ONE_MODEL_TRIES = 10


class JudgeClient(Protocol):
    """What judging needs of the model server."""

    async def judge(self, pixels: NDArray[np.uint8], text: str, bundle: PolicyBundle) -> RowResult:
        """The answer to one row."""
        ...

    async def spec(self) -> ModelSpec:
        """What the server says about its model now."""
        ...


class Rows:
    """Asks the model server about listings, however long it is out.

    Concurrency: any number of callers. Cancelling one takes its rows back.

    Args:
        client: The model server.
        model: What it said about its model; pictures are prepared for it.
        window: Waits between attempts.
        metrics: Counts.
        outages: Told when the model server is out.
    """

    def __init__(
        self,
        client: JudgeClient,
        model: ModelSpec,
        window: WindowSettings,
        metrics: Metrics,
        outages: Outages,
    ) -> None:
        self._client = client
        self._model = ServedModel(model, client.spec)
        self._window = window
        self._metrics = metrics
        self._circuit = Circuit(
            "triton",
            outages,
            first_s=window.retry_first_s,
            last_s=window.retry_last_s,
            is_outage=is_model_outage,
            on_retry=self._report_outage,
        )
        self._side = model.pixels.size

    async def check(self, policy: Policy) -> None:
        """Judge a grey picture under a policy: it fits the model, and is resident then.

        Raises:
            PolicyError: The model server refuses the policy.
            ConfigError: The model wants other pictures by now.
        """
        await self._circuit.call(partial(self._probe_policy, policy))

    async def judge(
        self, pictures: Sequence[NDArray[np.uint8]], text: str, policy: Policy
    ) -> tuple[list[RowResult], ModelSpec]:
        """A row for each picture, all judged by one model, and that model.

        Raises:
            PolicyError: The server refuses the policy.
            ConfigError: Two models go on answering, or the model wants other pictures.
        """
        wait_s = self._window.retry_first_s
        for _ in range(_ONE_MODEL_TRIES):
            rows = await together(self._row(pixels, text, policy) for pixels in pictures)
            digests = sorted({row.model_digest for row in rows})
            if len(digests) == 1:
                return rows, self._model.spec_of(digests[0])
            # A rollout: scores of two models are not comparable, and the verdict names one.
            _log.warning("models_mixed", digests=digests, wait_s=wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._window.retry_last_s)
        raise ConfigError(
            f"the model server answers the pictures of one listing as models {', '.join(digests)} "
            f"by turns, {_ONE_MODEL_TRIES} times running; let all servers behind the address "
            "serve one repository, or let the rollout end"
        )

    async def _row(self, pixels: NDArray[np.uint8], text: str, policy: Policy) -> RowResult:
        """One row, however long the model server is out.

        A server that fails a row of ours, too, is out; one that fails only this row has met
        a listing that it cannot take, which must not stop the partition.

        Raises:
            PolicyError: The server refuses the policy.
            ConfigError: The model wants other pictures by now.
        """

        async def attempt() -> RowResult:
            row = await self._ask(pixels, text, policy)
            if row.status == "ok" or row.status in LISTING_FAULTS:
                return row
            await self._probe_policy(policy)
            raise RuntimeError(f"the model server answers only this row with {row.status}")

        return await self._circuit.call(attempt)

    async def _probe_policy(self, policy: Policy) -> None:
        await probe_policy(self._ask, self._side, policy)

    async def _ask(self, pixels: NDArray[np.uint8], text: str, policy: Policy) -> RowResult:
        """The server's answer to one row, from a model that takes pictures as prepared."""
        try:
            row = await self._client.judge(pixels, text, policy.bundle)
        except BadOutputError:
            # Perhaps it refuses pictures because it has a model of another size by now.
            await self._model.read_again()
            raise
        await self._model.notice(row.model_digest)
        return row

    def _report_outage(self, exc: Exception, wait_s: float) -> None:
        if not isinstance(exc, InferenceError):
            raise BrokenInvariantError(f"an outage of the model server is {exc!r}") from exc
        self._metrics.retries.labels(exc.code).inc()
        _log.warning("model_server_out", code=exc.code, message=exc.message, wait_s=wait_s)


async def probe_policy(
    ask: Callable[[NDArray[np.uint8], str, Policy], Awaitable[RowResult]],
    side: int,
    policy: Policy,
) -> RowResult:
    """The answer to a sound row under a policy.

    Args:
        ask: Asks the model server about a picture, uint8 [S, S, 3], and a text.
        side: S, pixels.
        policy: Is resident in the server then.

    Raises:
        PolicyError: The server refuses the policy.
        InferenceError: The server does not answer, or fails what is sound.
    """
    row = await ask(np.full((side, side, 3), 127, np.uint8), _PROBE_TEXT, policy)
    if row.status in _SERVER_FAULTS:
        raise BadOutputError(
            f"the model server answers a sound row of policy {policy.id} with {row.status}"
        )
    if row.status != "ok":
        raise PolicyError(f"policy {policy.id}: {_policy_refusal(row.status)}")
    return row


def _policy_refusal(status: str) -> str:
    """What it means that a sound row of a policy gets another status than `ok`; what to do."""
    if status == "policy_too_long":
        return (
            "instruction and samples leave no room for a listing's text in the model; shorten the "
            "texts, or use fewer samples"
        )
    if status == "policy_invalid":
        return (
            "the model server cannot read this policy: a sample's text has no visible character, "
            f"the samples' pictures are over {MAX_BYTES >> 20} MiB in all, or worker and model "
            "repository are of different versions; correct the samples, or export again"
        )
    return f"the model server answers {status}"


def is_model_outage(exc: Exception) -> bool:
    """Whether an error means that the model server is out."""
    return isinstance(exc, InferenceError) and exc.retriable


async def together(calls: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order. The first failure is raised as it is; no other call outlives it."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
