"""A stand-in for Triton that speaks its real gRPC protocol: thousands of rows a second.

For tests of everything around the model: its scores come from a function of the text.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc

MODEL_DIGEST = hashlib.sha256(b"stub triton").hexdigest()
SIZE = 8
_DIGEST_LENGTH = 64
_PARAMETERS = {
    "model_name": "stub",
    "model_version": "1",
    "image_size": str(SIZE),
    "resample": "bicubic",
    "crop": "center",
    "picture_tokens": "4",
    "max_text_tokens": "100",
}


class StubTriton:
    """A server on loopback with one model, `relevance_judge`.

    Like the real one it answers `policy_unknown` for a digest it was not told the bundle of,
    and refuses pictures of another size, and more rows than its `max_batch_size`.

    Args:
        score: Raw score of a text, 0..1.
        status: Status of the rows of a text.
        latency_s: How long a request takes, seconds.

    Attributes:
        rows: Rows of each request so far.
        out: While it is set, every request is refused as unavailable.
        odd: "nan" answers NaN for sound rows, "shape" leaves out the last row.
        max_batch_size: Rows that it takes in one request.
        parameters: Of the model's configuration, as `stream-judge export` writes them.
        digest: Of the model.
    """

    def __init__(
        self,
        score: Callable[[str], float] = lambda _: 0.9,
        *,
        status: Callable[[str], str] = lambda _: "ok",
        latency_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._score = score
        self._status = status
        self._latency_s = latency_s
        self._known: set[bytes] = set()
        self._server: Any = None
        self.rows: list[int] = []
        self.out = False
        self.odd = ""
        self.max_batch_size = 32
        self.parameters = dict(_PARAMETERS)
        self.digest = MODEL_DIGEST
        self.url = ""

    async def start(self) -> None:
        """Serve on a free port; `url` names it. After `stop` on the port it had."""
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Service(self), self._server)
        port = self._server.add_insecure_port(self.url or "127.0.0.1:0")
        self.url = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """End the server at once; it has forgotten all policies when it starts again."""
        await self._server.stop(None)
        self._known.clear()

    async def infer(self, request: Any) -> Any:
        """The answer to one request."""
        raw = {
            tensor.name: content
            for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        texts = [text.decode() for text in _strings(raw["text"])]
        policies = list(_strings(raw["policy"]))
        self.rows.append(len(texts))
        await asyncio.sleep(self._latency_s())
        statuses = [self._row_status(*row) for row in zip(texts, policies, strict=True)]
        scores = [
            self._score(text) if status == "ok" else float("nan")
            for text, status in zip(texts, statuses, strict=True)
        ]
        if self.odd == "nan":
            scores = [float("nan")] * len(scores)
        elif self.odd == "shape":
            texts, statuses, scores = texts[1:], statuses[1:], scores[1:]
        return _answer(texts, statuses, scores, self.digest)

    def refusal(self, request: Any) -> str:
        """Why a request is not taken, as Triton's INVALID_ARGUMENT says it; empty if it is."""
        (shape,) = (list(t.shape) for t in request.inputs if t.name == "pixels")
        side = int(self.parameters["image_size"])
        if shape[0] > self.max_batch_size:
            return f"batch size {shape[0]} must be <= {self.max_batch_size}"
        if shape[1:] != [side, side, 3]:
            return f"unexpected shape for input 'pixels': {shape[1:]}"
        return ""

    def _row_status(self, text: str, policy: bytes) -> str:
        if len(policy) != _DIGEST_LENGTH:
            self._known.add(hashlib.sha256(policy).hexdigest().encode())
        elif policy not in self._known:
            return "policy_unknown"
        return self._status(text)


class _Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # untyped
    def __init__(self, stub: StubTriton) -> None:
        self._stub = stub

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        await self._refuse_if_out(context)
        answer = service_pb2.ModelConfigResponse()
        answer.config.max_batch_size = self._stub.max_batch_size
        for name, value in self._stub.parameters.items():
            answer.config.parameters[name].string_value = value
        return answer

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        await self._refuse_if_out(context)
        if refusal := self._stub.refusal(request):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        return await self._stub.infer(request)

    async def _refuse_if_out(self, context: Any) -> None:
        if self._stub.out:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the stub is out")


def _strings(raw: bytes) -> Iterator[bytes]:
    """Triton's BYTES tensor: a little-endian uint32 length before each string."""
    position = 0
    while position < len(raw):
        start = position + 4
        position = start + int.from_bytes(raw[position:start], "little")
        yield raw[start:position]


def _packed(strings: Sequence[str]) -> bytes:
    return b"".join(len(s.encode()).to_bytes(4, "little") + s.encode() for s in strings)


def _answer(
    texts: Sequence[str], statuses: Sequence[str], scores: Sequence[float], digest: str
) -> Any:
    n = len(texts)
    column: NDArray[np.float32] = np.array(scores, np.float32).reshape(n, 1)
    counts = [[len(text.split()), 0] for text in texts]
    tensors: list[tuple[str, str, int, bytes]] = [
        ("raw_score", "FP32", 1, column.tobytes()),
        ("answer_mass", "FP32", 1, np.full((n, 1), 0.99, np.float32).tobytes()),
        ("tokens", "INT32", 2, np.array(counts, np.int32).tobytes()),
        ("model", "BYTES", 1, _packed([digest] * n)),
        ("status", "BYTES", 1, _packed(statuses)),
    ]
    answer = service_pb2.ModelInferResponse(model_name="relevance_judge", model_version="1")
    for name, datatype, width, raw in tensors:
        answer.outputs.add(name=name, datatype=datatype, shape=[n, width])
        answer.raw_output_contents.append(raw)
    return answer
