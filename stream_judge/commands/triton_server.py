"""`stream-judge triton`: the embedded server in the foreground."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import structlog

from stream_judge.commands.foreground import serve
from stream_judge.embedded.triton import EmbeddedTriton
from stream_judge.logs import set_up_logs
from stream_judge.settings import LogSettings


async def run_triton(repository: Path, grpc_port: int, http_port: int, metrics_port: int) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean stop, 1 if the server ended by itself.

    Models may load for as long as they need: who waits sees it, and can stop it.
    """
    set_up_logs(LogSettings(format="console"))
    log = structlog.get_logger("triton")
    server = EmbeddedTriton(
        repository,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        on_line=lambda line: log.info("triton", line=line) if line else None,
    )
    return await serve(
        server,
        partial(server.start, deadline_s=None),
        on_ready=lambda: log.info("triton_ready", grpc=server.grpc_url, metrics=server.metrics_url),
        on_starting=lambda taken_s: log.info("triton_loading", taken_s=round(taken_s)),
    )
