"""The client of the model server; the only module that imports tritonclient.

Rows of the same policy, whichever record they come from, travel together: a request
leaves when it is full, or when its first row has lingered. A server that does not know a
policy's digest is told its bundle once, in one row.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import aio as tritonclient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from stream_judge.errors import (
    BadOutputError,
    InferenceError,
    TritonTimeoutError,
    TritonUnavailableError,
)
from stream_judge.images.spec import PixelSpec
from stream_judge.triton_options import TritonOptions

_OUTPUTS = ("raw_score", "logits", "answer_mass", "tokens", "model", "status")
_UNKNOWN = "policy_unknown"
#: Row statuses that are the policy's own fault, whatever the row.
POLICY_FAULTS = frozenset({"policy_invalid", "policy_too_long"})
# A server that forgets a policy as soon as it was told has a cache that is too small for
# the policies in use; asking it forever would hide that.
_TELLINGS = 3
# These replace the client library's own. gRPC's two minutes between attempts to connect
# would leave a server that is back unnoticed (measured after 75 s: 37 s, and 2 s with these).
_CHANNEL = [
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


@dataclass(frozen=True, slots=True)
class PolicyBundle:
    """What the server must know of a policy (`serving.bundle`).

    Attributes:
        digest: sha256 of `data`, 64 hex digits.
        data: The bundle.
    """

    digest: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the server says about its model.

    Attributes:
        name: The model's name.
        version: The model's version.
        pixels: How pictures must be prepared.
        picture_tokens: Tokens a picture becomes.
        max_batch_size: Rows in one request at most.
        max_text_tokens: Text tokens that are read at most.
    """

    name: str
    version: str
    pixels: PixelSpec
    picture_tokens: int
    max_batch_size: int
    max_text_tokens: int


@dataclass(frozen=True, slots=True)
class RowResult:
    """The server's answer to one row; scores are NaN unless `status` is `ok`.

    Attributes:
        status: One of `serving.decoder.STATUSES`.
        raw_score: P(yes) against no, 0..1.
        logits: (yes, no).
        answer_mass: P(yes or no) within the whole vocabulary, 0..1.
        tokens_used: Text tokens read.
        tokens_cut: Text tokens left out at the end.
        model_digest: sha256 of the manifest of the repository that answered.
    """

    status: str
    raw_score: float
    logits: tuple[float, float]
    answer_mass: float
    tokens_used: int
    tokens_cut: int
    model_digest: str


@dataclass(slots=True)
class _Waiting:
    pixels: NDArray[np.uint8]
    text: str
    answer: asyncio.Future[RowResult]


@dataclass(slots=True)
class _Group:
    bundle: PolicyBundle
    rows: list[_Waiting]
    timer: asyncio.TimerHandle | None = None


class TritonJudge:
    """Judges rows on a Triton server.

    Concurrency: any number of callers; at most `max_requests` requests are under way.
    Cancelling a caller takes its row back if it has not left yet.

    Args:
        options: Address, deadline and grouping.
        on_batch: Told the number of rows of each request that leaves.
    """

    def __init__(
        self, options: TritonOptions, *, on_batch: Callable[[int], None] = lambda _: None
    ) -> None:
        self._options = options
        self._on_batch = on_batch
        self._client: Any = None
        self._groups: dict[str, _Group] = {}
        self._requests: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(options.max_requests)
        self._max_rows = options.batch_size

    async def start(self) -> None:
        """Open the channel; no server has to answer yet."""
        self._client = tritonclient.InferenceServerClient(self._options.url, channel_args=_CHANNEL)

    async def close(self) -> None:
        """End requests under way (their callers get `TritonUnavailableError`)."""
        for group in self._groups.values():
            if group.timer:
                group.timer.cancel()
            _fail(group.rows, TritonUnavailableError("the client is closing"))
        self._groups.clear()
        for task in self._requests:
            task.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def ready(self) -> bool:
        """Whether the model can judge now."""
        try:
            return bool(
                await self._client.is_model_ready(
                    self._options.model, client_timeout=self._options.timeout_s
                )
            )
        except (InferenceServerException, grpc.RpcError, OSError):
            return False

    async def spec(self) -> ModelSpec:
        """What the server says about its model; requests keep to its batch size from then on.

        Raises:
            TritonUnavailableError: No server, or no such model.
            TritonTimeoutError: No answer in time.
            BadOutputError: A model that `stream-judge export` did not write.
        """
        try:
            answer = await self._client.get_model_config(
                self._options.model, as_json=True, client_timeout=self._options.timeout_s
            )
        except (InferenceServerException, grpc.RpcError, OSError) as exc:
            raise self._mapped(exc) from exc
        spec = self._read_spec(answer)
        self._max_rows = min(self._options.batch_size, spec.max_batch_size)
        return spec

    def _read_spec(self, answer: Any) -> ModelSpec:
        try:
            config = answer["config"]
            given = {k: v["string_value"] for k, v in config["parameters"].items()}
            pixels = PixelSpec(int(given["image_size"]), given["resample"], given["crop"])
            return ModelSpec(
                name=given["model_name"],
                version=given["model_version"],
                pixels=pixels,
                picture_tokens=int(given["picture_tokens"]),
                max_batch_size=int(config["max_batch_size"]),
                max_text_tokens=int(given["max_text_tokens"]),
            )
        except (KeyError, ValueError, TypeError) as exc:
            raise BadOutputError(
                f"model {self._options.model!r} at {self._options.url} was not written by "
                f"stream-judge export: {exc!r} missing in its configuration"
            ) from exc

    async def judge(self, pixels: NDArray[np.uint8], text: str, bundle: PolicyBundle) -> RowResult:
        """The server's answer to one row.

        Args:
            pixels: uint8 [S, S, 3], RGB, prepared as `ModelSpec.pixels` says.
            text: The listing's text, untrusted.
            bundle: The policy.

        Raises:
            TritonUnavailableError: No server, or the model is not loaded.
            TritonTimeoutError: No answer within `timeout_s`.
            BadOutputError: An answer that breaks the contract (also NaN).
        """
        row = _Waiting(pixels, text, asyncio.get_running_loop().create_future())
        group = self._groups.get(bundle.digest)
        if group is None:
            group = self._groups[bundle.digest] = _Group(bundle, [])
            loop = asyncio.get_running_loop()
            group.timer = loop.call_later(self._options.linger_s, self._leave, bundle.digest)
        group.rows.append(row)
        if len(group.rows) >= self._max_rows:
            self._leave(bundle.digest)
        return await row.answer

    def _leave(self, digest: str) -> None:
        group = self._groups.pop(digest, None)
        if group is None:
            return
        if group.timer:
            group.timer.cancel()
        task = asyncio.get_running_loop().create_task(self._send(group))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _send(self, group: _Group) -> None:
        rows = group.rows
        try:
            async with self._slots:
                rows = [row for row in rows if not row.answer.done()]
                if rows:
                    await self._settle(rows, group.bundle)
        except InferenceError as exc:
            _fail(rows, exc)
        except asyncio.CancelledError:
            _fail(rows, TritonUnavailableError("the client is closing"))
            raise
        except Exception as exc:  # noqa: BLE001 - whoever waits must hear of it
            _fail(rows, exc)

    async def _settle(self, rows: list[_Waiting], bundle: PolicyBundle) -> None:
        name = bundle.digest.encode()
        for _ in range(_TELLINGS):
            results = await self._infer(rows, [name] * len(rows))
            unknown = []
            for row, result in zip(rows, results, strict=True):
                if result.status == _UNKNOWN:
                    unknown.append(row)
                elif not row.answer.done():
                    row.answer.set_result(result)
            if not unknown:
                return
            # The bundle in one row registers the policy and is that row's judgement.
            (first,) = await self._infer(unknown[:1], [bundle.data])
            # A policy that cannot be registered is refused for one row as for all.
            told = unknown if first.status in POLICY_FAULTS else unknown[:1]
            for row in told:
                if not row.answer.done():
                    row.answer.set_result(first)
            rows = unknown[len(told) :]
            if not rows:
                return
        raise BadOutputError(
            f"Triton at {self._options.url} forgets policy {bundle.digest[:12]} at once; "
            "give its prefix cache more room (cache_bytes, cache_entries)"
        )

    async def _infer(self, rows: Sequence[_Waiting], policies: list[bytes]) -> list[RowResult]:
        texts = [[row.text.encode("utf-8", "replace")] for row in rows]
        arrays = {
            "pixels": np.stack([row.pixels for row in rows]),
            "text": np.array(texts, np.object_),
            "policy": np.array([[policy] for policy in policies], np.object_),
        }
        inputs = []
        for name, array in arrays.items():
            tensor = tritonclient.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        outputs = [tritonclient.InferRequestedOutput(name) for name in _OUTPUTS]
        self._on_batch(len(rows))
        try:
            answer = await self._client.infer(
                self._options.model,
                inputs,
                outputs=outputs,
                client_timeout=self._options.timeout_s,
            )
        except (InferenceServerException, grpc.RpcError, OSError) as exc:
            raise self._mapped(exc) from exc
        return self._rows(answer, len(rows))

    def _rows(self, answer: Any, n: int) -> list[RowResult]:
        arrays = {name: answer.as_numpy(name) for name in _OUTPUTS}
        wrong = [name for name, array in arrays.items() if array is None or len(array) != n]
        if wrong:
            raise BadOutputError(f"Triton answered {n} rows without {', '.join(wrong)}")
        results = []
        for i in range(n):
            status = bytes(arrays["status"][i][0]).decode()
            result = RowResult(
                status=status,
                raw_score=float(arrays["raw_score"][i][0]),
                logits=(float(arrays["logits"][i][0]), float(arrays["logits"][i][1])),
                answer_mass=float(arrays["answer_mass"][i][0]),
                tokens_used=int(arrays["tokens"][i][0]),
                tokens_cut=int(arrays["tokens"][i][1]),
                model_digest=bytes(arrays["model"][i][0]).decode(),
            )
            if status == "ok" and not 0.0 <= result.raw_score <= 1.0:
                raise BadOutputError(f"Triton answered the score {result.raw_score}")
            results.append(result)
        return results

    def _mapped(self, exc: Exception) -> InferenceError:
        """Which error of ours an error of the client library is."""
        said = str(exc)
        where = f"Triton at {self._options.url}"
        status = exc.status() if isinstance(exc, InferenceServerException) else str(exc)
        if "DEADLINE_EXCEEDED" in str(status):
            return TritonTimeoutError(f"{where}: no answer within {self._options.timeout_s} s")
        if "INVALID_ARGUMENT" in str(status):
            return BadOutputError(f"{where} refuses the request: {said}")
        return TritonUnavailableError(f"{where} cannot judge: {said}")


def _fail(rows: Sequence[_Waiting], exc: Exception) -> None:
    for row in rows:
        if not row.answer.done():
            row.answer.set_exception(exc)


def is_usable(result: RowResult) -> bool:
    """Whether the row was judged."""
    return result.status == "ok" and not math.isnan(result.raw_score)
