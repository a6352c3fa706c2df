"""A judge with stand-ins around it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from stream_judge.judge import Judge
from stream_judge.mapping import Mapping
from stream_judge.metrics import Metrics
from stream_judge.policy import Policy, PolicyFile, PolicySet
from stream_judge.resources import resource
from stream_judge.serving.bundle import digest_of, pack_bundle
from stream_judge.settings import WindowSettings
from stream_judge.testing import MODEL, StubImages, StubJudge
from stream_judge.triton import PolicyBundle
from stream_judge.verdict import VerdictWriter

MakeJudge = Callable[..., Judge]


def make_policy(**fields: Any) -> Policy:
    file = PolicyFile(**{"id": "exact", "version": 1, "instruction": "All counts."} | fields)
    data = pack_bundle(file.instruction, [], size=8)
    digest = hashlib.sha256(repr(sorted(fields.items())).encode()).hexdigest()
    return Policy(file, digest, PolicyBundle(digest_of(data), data))


@pytest.fixture
def make_judge() -> MakeJudge:
    def make(
        *,
        client: StubJudge | None = None,
        images: StubImages | None = None,
        max_record_bytes: int = 1_000_000,
        **policy: Any,
    ) -> Judge:
        return Judge(
            mapping=Mapping.read(resource("mappings/catalogue.yaml")),
            policies=PolicySet([make_policy(**policy)]),
            model=MODEL,
            loader=images or StubImages(),
            client=client or StubJudge(),
            writer=VerdictWriter(source="/test", max_record_bytes=max_record_bytes),
            window=WindowSettings(retry_first_s=0.001, retry_last_s=0.002),
            metrics=Metrics(),
        )

    return make
