"""Which model answers now: the one that pictures are prepared for, or another since."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import structlog

from stream_judge.errors import ConfigError
from stream_judge.triton import ModelSpec

_log = structlog.get_logger(__name__)
# While a rollout goes on, a row's answer and the specification can come from two servers; so
# long after the last change of the digest they no longer do.
_CONFIRM_S = 60.0


class ServedModel:
    """What is known of the model, held against what its answers say.

    A row names its model by a digest, and a specification has none: the one that was read
    before a row and the one that is read after it stand on both sides of it. It is read at
    every change of the digest, also where a rollout answers with two by turns, and once more
    when there was none for a while.

    Args:
        spec: What pictures are prepared for.
        read: Reads what the server says now.
        clock: Seconds that only go up.
    """

    def __init__(
        self,
        spec: ModelSpec,
        read: Callable[[], Awaitable[ModelSpec]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._read = read
        self._clock = clock
        self._digest: str | None = None
        self._confirm_at = math.inf
        self._specs: dict[str, ModelSpec] = {}
        self._begun = 0
        self._good = 0
        self._turn = asyncio.Lock()

    def spec_of(self, digest: str) -> ModelSpec:
        """The name and version of a model that has answered."""
        return self._specs.get(digest, self._spec)

    async def notice(self, digest: str) -> None:
        """Take in which model answered a row; raises as `read_again`, if it is another one."""
        is_new = digest != self._digest
        if not is_new and self._clock() < self._confirm_at:
            return
        await self.read_again()
        self._specs[digest] = self._spec
        self._digest = digest
        self._confirm_at = self._clock() + _CONFIRM_S if is_new else math.inf

    async def read_again(self) -> None:
        """Read what the server says of its model now; many callers at once read once.

        Raises:
            ConfigError: It wants pictures prepared in another way.
            InferenceError: The server does not say.
        """
        asked = self._begun
        async with self._turn:
            if self._good > asked:
                # One that began after this caller's answer has come meanwhile.
                return
            self._begun = begun = self._begun + 1
            now = await self._read()
            self._good = begun
            self._take(now)

    def _take(self, now: ModelSpec) -> None:
        if now.pixels != self._spec.pixels:
            # Pictures under way, policies' samples and the decoders all have the old one.
            raise ConfigError(
                f"the model server has {now.name} {now.version} now, which wants its pictures "
                f"as {now.pixels}; they are prepared as {self._spec.pixels}: the preparation "
                "changed under the worker, and a restart takes it up"
            )
        if now != self._spec:
            _log.info("model_changed", name=now.name, version=now.version)
        self._spec = now
