"""Stand-ins for tests, ours and yours: records, pictures, a model server, a publisher.

And the reference gate, which takes in what a publisher has published (`docs/gate.md`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import SecretStr

from stream_judge.errors import ImageError, ImageNotFoundError
from stream_judge.events import Headers, SourceRecord
from stream_judge.gate import Gate as Gate
from stream_judge.gate import open_gate as open_gate
from stream_judge.gate_state import GateState as GateState
from stream_judge.images.loader import LoadedImage
from stream_judge.images.spec import PixelSpec
from stream_judge.publisher import Partition
from stream_judge.settings import KafkaSettings
from stream_judge.triton import ModelSpec, PolicyBundle, RowResult
from stream_judge.verdict import Outcome

MODEL = ModelSpec("stub", "1", PixelSpec(8), 32)
MODEL_DIGEST = hashlib.sha256(b"stub").hexdigest()


def make_record(
    value: Mapping[str, Any] | bytes | None,
    *,
    key: bytes | None = b"p-1",
    topic: str = "product-updates",
    partition: int = 0,
    offset: int = 0,
    headers: Headers = (),
) -> SourceRecord:
    """A source record; a mapping becomes JSON."""
    data = orjson.dumps(value) if isinstance(value, Mapping) else value
    return SourceRecord(topic, partition, offset, 1_700_000_000_000, key, data, headers)


def kafka_environment(settings: KafkaSettings) -> dict[str, str]:
    """The environment that gives a process these Kafka settings, secrets too."""
    env = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            shown = value.get_secret_value() if isinstance(value, SecretStr) else value
            env[f"STREAM_JUDGE_KAFKA__{name.upper()}"] = str(shown)
    return env


class StubImages:
    """Pictures by URL: an error is raised, anything else is a grey picture.

    Args:
        errors: Errors by URL.
    """

    def __init__(self, errors: Mapping[str, ImageError] | None = None) -> None:
        self.errors = dict(errors or {})
        self.asked: list[str] = []

    async def load(self, url: str) -> LoadedImage:
        """The picture, or the error."""
        self.asked.append(url)
        if error := self.errors.get(url):
            raise error
        if not url.startswith("http"):
            raise ImageNotFoundError(f"no picture {url}")
        return LoadedImage(url, hashlib.sha256(url.encode()).hexdigest(), 8, 8, grey())


class StubJudge:
    """A model server in this process.

    Args:
        score: Raw score of a text.
        failures: Raised one after the other before any answer is given.
        status: Status of every row, or of the rows of a text.

    Attributes:
        calls: Rows so far.
        model: What it says about its model.
        digest: Of the model.
    """

    def __init__(
        self,
        score: Callable[[str], float] = lambda _: 0.9,
        *,
        failures: Sequence[Exception] = (),
        status: str | Callable[[str], str] = "ok",
    ) -> None:
        self._score = score
        self._failures = list(failures)
        self._status = status
        self.calls = 0
        self.model = MODEL
        self.digest = MODEL_DIGEST

    async def spec(self) -> ModelSpec:
        """What it says about its model."""
        return self.model

    async def judge(self, pixels: NDArray[np.uint8], text: str, bundle: PolicyBundle) -> RowResult:
        """The answer to one row."""
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0)
        status = self._status if isinstance(self._status, str) else self._status(text)
        score = self._score(text) if status == "ok" else float("nan")
        tokens = len(text.split())
        return RowResult(status, score, 0.99, tokens, 0, self.digest)


class MemoryPublisher:
    """Keeps what is published; every lane's sink is the publisher itself.

    Args:
        failing: Raised by every `publish` while it is set.
    """

    def __init__(self, failing: Exception | None = None) -> None:
        self.failing = failing
        self.runs: list[list[Outcome]] = []
        self.closed = self.tended = 0

    @property
    def outcomes(self) -> list[Outcome]:
        """All outcomes, in the order of their publication."""
        return [outcome for run in self.runs for outcome in run]

    async def start(self) -> None:
        """Nothing to connect."""

    async def open(
        self, partitions: Collection[Partition], generation: int
    ) -> Mapping[Partition, MemoryPublisher]:
        """A sink for each partition."""
        return dict.fromkeys(partitions, self)

    async def tend(self) -> None:
        """Count how often it was asked for."""
        self.tended += 1

    async def watch(self, need_tending: Callable[[Partition], None]) -> None:
        """Nothing to look after."""

    async def close(self) -> None:
        """Count the lanes that ended."""
        self.closed += 1

    async def publish(self, run: Sequence[Outcome]) -> None:
        """Keep a run."""
        if self.failing is not None:
            raise self.failing
        self.runs.append(list(run))

    async def stop(self) -> None:
        """Nothing to disconnect."""


def grey(size: int = 8) -> NDArray[np.uint8]:
    """uint8 [size, size, 3], all 127."""
    return np.full((size, size, 3), 127, np.uint8)
