"""The client of the model server; of the worker, the only module that imports tritonclient.

Rows of the same policy, whichever record they come from, travel together: a request
leaves when it is full, or when its first row has lingered, and not before one of the requests
under way has ended if there are too many. It takes in rows until it leaves. A server that
does not know a policy's digest is told its bundle once, in one row.
"""

from __future__ import annotations

import asyncio
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
from stream_judge.triton_options import TritonOptions, tls_arguments

_OUTPUTS = ("raw_score", "answer_mass", "tokens", "model", "status")
_UNKNOWN = "policy_unknown"
#: Row statuses that are the policy's own fault, whatever the row.
POLICY_FAULTS = frozenset({"policy_invalid", "policy_too_long"})
# Row statuses that a server gives only under a policy that it holds by then.
_TAKEN_IN = frozenset({"ok", "text_empty"})
# A server that forgets a policy as soon as it was told has a cache that is too small for
# the policies in use; asking it forever would hide that. But behind one address there can be
# several instances (a server has one on each GPU), and each must be told.
_TELLINGS = 8
# So many rows one after the other that it fails to take the policy from: it is not the rows.
_REFUSALS = 3
# These replace the client library's own. gRPC's two minutes between attempts to connect
# would leave a server that is back unnoticed (measured after 75 s: 37 s, and 2 s with these).
_CHANNEL = [
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A host that vanishes closes nothing: the kernel would go on sending to it for 15 minutes,
    # and a deadline that passes ends no connection. With keepalive gRPC makes its time-out the
    # connection's limit for what is not acknowledged (TCP_USER_TIMEOUT), requests included.
    # No ping is sent within the usual deadline, because Triton hangs up on who pings often.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
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
        max_batch_size: Rows in one request at most.
    """

    name: str
    version: str
    pixels: PixelSpec
    max_batch_size: int


@dataclass(frozen=True, slots=True)
class RowResult:
    """The server's answer to one row; scores are NaN unless `status` is `ok`.

    Attributes:
        status: One of `serving.decoder.STATUSES`.
        raw_score: P(yes) against no, 0..1.
        answer_mass: P(yes or no) within the whole vocabulary, 0..1.
        tokens_used: Text tokens read.
        tokens_cut: Text tokens left out at the end.
        model_digest: sha256 of the manifest of the repository that answered.
    """

    status: str
    raw_score: float
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
    """Rows of a policy that will be a request.

    Attributes:
        bundle: The policy.
        rows: At most a request's.
        timer: Starts the sender; None once there is one.
    """

    bundle: PolicyBundle
    rows: list[_Waiting]
    timer: asyncio.TimerHandle | None = None


class TritonJudge:
    """Judges rows on a Triton server.

    Concurrency: any number of callers; at most `max_requests` requests are under way, and
    groups of rows get their turn in the order in which they lingered or were full. Cancelling
    a caller takes its row back if it has not left yet.

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
        self._senders: dict[asyncio.Task[None], _Group] = {}
        self._slots = asyncio.Semaphore(options.max_requests)
        self._max_rows = options.batch_size

    async def start(self) -> None:
        """Open the channel; no server has to answer yet.

        Raises:
            ConfigError: A file of TLS cannot be used.
        """
        self._client = tritonclient.InferenceServerClient(
            self._options.url, channel_args=_CHANNEL, **tls_arguments(self._options)
        )

    async def close(self) -> None:
        """End requests under way (their callers get `TritonUnavailableError`)."""
        # All of them, also those whose sender has not begun to run.
        for group in (*self._groups.values(), *self._senders.values()):
            if group.timer:
                group.timer.cancel()
            _fail(group.rows, TritonUnavailableError("the client is closing"))
        self._groups.clear()
        for task in self._senders:
            task.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

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
                max_batch_size=int(config["max_batch_size"]),
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
            group.timer = loop.call_later(self._options.linger_s, self._start_sender, group)
        # Whoever has given up takes no place.
        group.rows = [*(other for other in group.rows if not other.answer.done()), row]
        if len(group.rows) >= self._max_rows:
            del self._groups[bundle.digest]
            self._start_sender(group)
        return await row.answer

    def _start_sender(self, group: _Group) -> None:
        """Have a group sent as soon as a request may leave; until then rows may join it."""
        if group.timer is None:
            return
        group.timer.cancel()
        group.timer = None
        task = asyncio.get_running_loop().create_task(self._send(group))
        self._senders[task] = group
        task.add_done_callback(self._senders.pop)

    async def _send(self, group: _Group) -> None:
        try:
            async with self._slots:
                if self._groups.get(group.bundle.digest) is group:
                    del self._groups[group.bundle.digest]
                rows = [row for row in group.rows if not row.answer.done()]
                if rows:
                    await self._settle(rows, group.bundle)
        except Exception as exc:  # noqa: BLE001 - whoever waits must hear of it
            _fail(group.rows, exc)

    async def _settle(self, rows: list[_Waiting], bundle: PolicyBundle) -> None:
        """Answer rows; tell the server their policy as often as it takes.

        Raises:
            BadOutputError: It does not take the policy in, or does not keep it.
        """
        where = f"Triton at {self._options.url}"
        unknown, refusals = await self._ask(rows, bundle), 0
        for _ in range(_TELLINGS):
            if not unknown:
                return
            # The bundle in one row registers the policy and is that row's judgement.
            (first,) = await self._infer(unknown[:1], [bundle.data])
            # A policy that cannot be registered is refused for one row as for all.
            told = unknown if first.status in POLICY_FAULTS else unknown[:1]
            _give(told, [first] * len(told))
            unknown = await self._ask(unknown[len(told) :], bundle)
            refusals = 0 if first.status in _TAKEN_IN else refusals + 1
            if unknown and refusals == _REFUSALS:
                raise BadOutputError(
                    f"{where} cannot take policy {bundle.digest[:12]}: it answers {first.status}"
                )
        if unknown:
            raise BadOutputError(
                f"{where} forgets policy {bundle.digest[:12]} at once; "
                "give its prefix cache more room (cache_bytes, cache_entries)"
            )

    async def _ask(self, rows: list[_Waiting], bundle: PolicyBundle) -> list[_Waiting]:
        """Answer rows under a policy's digest; those of them for which it is not known."""
        if not rows:
            return []
        results = await self._infer(rows, [bundle.digest.encode()] * len(rows))
        pairs = list(zip(rows, results, strict=True))
        known = [pair for pair in pairs if pair[1].status != _UNKNOWN]
        _give([row for row, _ in known], [result for _, result in known])
        return [row for row, result in pairs if result.status == _UNKNOWN]

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
        return TritonUnavailableError(f"{where} cannot judge: {said}{_advice(said)}")


def _advice(said: str) -> str:
    """Which settings to look at when somebody answers and no connection comes of it."""
    if "handshake failed" in said:
        return "; check triton.tls and triton.ca_file"
    # So it looks to whoever speaks without TLS to a server that has it, or shows no certificate.
    if "failed to connect" in said and "Socket closed" in said:
        return "; check triton.tls, and triton.cert_file if it asks for a certificate"
    return ""


def _give(rows: Sequence[_Waiting], results: Sequence[RowResult]) -> None:
    for row, result in zip(rows, results, strict=True):
        if not row.answer.done():
            row.answer.set_result(result)


def _fail(rows: Sequence[_Waiting], exc: Exception) -> None:
    for row in rows:
        if not row.answer.done():
            row.answer.set_exception(exc)
