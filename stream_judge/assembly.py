"""A judge put together from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from stream_judge.errors import PolicyError
from stream_judge.freeze import FreezeTicker
from stream_judge.images.decode import longest_s
from stream_judge.images.loader import ImageLoader
from stream_judge.images.patience import Patience
from stream_judge.judge import Judge, Observer
from stream_judge.mapping import Mapping
from stream_judge.metrics import Metrics
from stream_judge.outage import Circuit, Outages
from stream_judge.policy import (
    PolicyFile,
    check_fields,
    check_pictures,
    load_policies,
    read_policy_files,
)
from stream_judge.rows import is_model_outage
from stream_judge.settings import Settings, WindowSettings
from stream_judge.triton import ModelSpec, TritonJudge
from stream_judge.verdict import VerdictWriter

_log = structlog.get_logger(__name__)


def read_policies(settings: Settings, mapping: Mapping) -> list[tuple[Path, PolicyFile]]:
    """The policy files of the settings, as far as they can be checked without a model server.

    Raises:
        PolicyError: They cannot work, or not with this mapping or these settings.
    """
    files = read_policy_files(settings.policies)
    check_fields([file for _, file in files], mapping.text_fields)
    check_pictures(files)
    _check_time(files, settings)
    return files


def _check_time(files: list[tuple[Path, PolicyFile]], settings: Settings) -> None:
    """See that no listing's pictures, as slow as can be, make its record count as stuck.

    Raises:
        PolicyError: They are too many for the decoders there are.
    """
    # The other half is for fetching them, and for starting decoders.
    limit_s = settings.window.stall_limit_s / 2
    for path, file in files:
        pictures = 1 if file.images.aggregate == "primary" else file.images.max
        needed_s = longest_s(settings.images, pictures)
        if needed_s > limit_s:
            raise PolicyError(
                f"policy {path.name}: {pictures} slow pictures of one listing take the decoders "
                f"up to {needed_s:g} s, and half of window.stall_limit_s is {limit_s:g} s: raise "
                "that or images.decoders, or lower the policy's images.max or "
                "images.decode_timeout_s"
            )


@asynccontextmanager
async def build_judge(
    settings: Settings,
    metrics: Metrics,
    *,
    observer: Observer | None = None,
    outages: Outages | None = None,
) -> AsyncIterator[Judge]:
    """A judge with all it needs; waits for the model server as long as it is out.

    Raises:
        ConfigError: Mapping or policies cannot work; said before any waiting.
    """
    mapping = Mapping.read(settings.mapping)
    files = read_policies(settings, mapping)
    outages = outages or Outages()
    window = settings.window
    async with AsyncExitStack() as stack:
        freeze = FreezeTicker()
        stack.callback(asyncio.create_task(freeze.run()).cancel)
        client = TritonJudge(settings.triton, on_batch=metrics.batch_rows.observe)
        await client.start()
        stack.push_async_callback(client.close)
        model = await _wait_for_model(client, window, outages)
        patience = Patience(
            outages,
            first_s=window.retry_first_s,
            last_s=window.retry_last_s,
        )
        loader = ImageLoader(settings.images, model.pixels, patience, freeze)
        await loader.start()
        stack.push_async_callback(loader.close)
        judge = Judge(
            mapping=mapping,
            policies=await load_policies(files, model.pixels, loader.decode),
            model=model,
            loader=loader,
            client=client,
            writer=VerdictWriter(
                source=f"/stream_judge/{settings.kafka.application}",
                max_record_bytes=settings.kafka.max_record_bytes,
            ),
            window=window,
            metrics=metrics,
            observer=observer,
            outages=outages,
        )
        await judge.check_policies()
        yield judge


async def _wait_for_model(
    client: TritonJudge, window: WindowSettings, outages: Outages
) -> ModelSpec:
    def report(exc: Exception, wait_s: float) -> None:
        _log.warning("model_server_out", message=str(exc), wait_s=wait_s)

    circuit = Circuit(
        "triton",
        outages,
        first_s=window.retry_first_s,
        last_s=window.retry_last_s,
        is_outage=is_model_outage,
        on_retry=report,
    )
    return await circuit.call(client.spec)
