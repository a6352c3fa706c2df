"""`stream-judge`: commands, wiring only; heavy modules are imported where they are used."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from stream_judge import exits
from stream_judge.commands.options import Flags, SettingsFile
from stream_judge.errors import (
    BrokerError,
    ConfigError,
    EnvironmentProblem,
    ExportError,
    StreamJudgeError,
)
from stream_judge.extras import need

app = typer.Typer(
    help="Does every product's picture match its text?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(help="The Kafka topics.", no_args_is_help=True)
app.add_typer(topics_app, name="topics")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]
# Of the extra of that name; a training's has some of them, too.
_EXPORT_MODULES = (
    "onnx",
    "onnxruntime",
    "optimum.exporters.onnx",
    "tokenizers",
    "torch",
    "transformers",
)


def _settings(path: Path | None, flags: list[str] | None, **overrides: Any) -> Any:
    from stream_judge.settings import read_settings

    given = {name: value for name, value in overrides.items() if value is not None}
    return read_settings(path, flags or (), **given)


@app.command()
def worker(settings: SettingsFile = None, flags: Flags = None) -> None:
    """Judge the source topic until SIGTERM; it drains and exits with 0."""
    from stream_judge.logs import set_up_logs
    from stream_judge.worker import run_worker

    found = _settings(settings, flags)
    set_up_logs(found.log)
    try:
        code = asyncio.run(run_worker(found))
    except BrokerError as exc:
        # What restarts workers knows their own codes (docs/operating.md).
        _say(exc)
        raise typer.Exit(1) from exc
    sys.stderr.flush()
    # Faust leaves threads behind that would keep a finished worker from ending.
    os._exit(code)


@app.command()
def judge(
    event: Annotated[Path, typer.Argument(help="File with one event's JSON.")],
    settings: SettingsFile = None,
    flags: Flags = None,
    mapping: Annotated[Path | None, typer.Option(help="Mapping file to try.")] = None,
    policies: Annotated[Path | None, typer.Option(help="Policy folder to try.")] = None,
) -> None:
    """Judge one event without Kafka, and show every step.

    It needs the model server, and waits for one that is not there.
    """
    from stream_judge.commands.judge_event import judge_event
    from stream_judge.logs import set_up_logs

    found = _settings(settings, flags, mapping=mapping, policies=policies)
    set_up_logs(found.log)
    raise typer.Exit(asyncio.run(judge_event(event, found)))


@app.command()
def triton(
    repository: Annotated[Path | None, typer.Option(help="Model repository.")] = None,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
    http_port: Annotated[int, typer.Option(help="HTTP port.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Prometheus port.")] = 8002,
) -> None:
    """Run the embedded Triton in the foreground, on loopback."""
    from stream_judge.commands.triton_server import run_triton
    from stream_judge.resources import resource

    ports = (grpc_port, http_port, metrics_port)
    raise typer.Exit(asyncio.run(run_triton(repository or resource("model_repo"), *ports)))


@app.command()
def kafka(
    port: Annotated[int, typer.Option(help="Client port of the first node.")] = 9092,
    nodes: Annotated[int, typer.Option(min=1, max=3, help="Brokers.")] = 1,
    folder: Annotated[
        Path | None, typer.Option(help="Where data is kept; without it data goes at the end.")
    ] = None,
) -> None:
    """Run a real Apache Kafka in the foreground, on loopback; needs Java 17.

    The first time it takes Maven, too, which puts Kafka's jars into
    `~/.cache/stream-judge` (or below `XDG_CACHE_HOME`).
    """
    from stream_judge.commands.kafka_server import run_kafka
    from stream_judge.embedded.kafka import KafkaOptions

    raise typer.Exit(asyncio.run(run_kafka(KafkaOptions(nodes=nodes, port=port, folder=folder))))


@app.command()
def catalogue(
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    count: Annotated[int, typer.Option(min=1, help="Product updates.")] = 200,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 7,
) -> None:
    """Draw a shop: pictures, events.jsonl and truth.jsonl."""
    from stream_judge.catalogue.events import make_catalogue

    report = make_catalogue(count, seed, out)
    typer.echo(f"{report.out}: {report.events} events, {report.pictures} pictures")


@app.command()
def demo(
    events: Annotated[int, typer.Option(min=1, help="Product updates.")] = 120,
    seed: Annotated[int, typer.Option(help="Seed of the drawn shop.")] = 7,
    as_json: AsJson = False,
    keep: Annotated[bool, typer.Option(help="Keep the run's folder.")] = False,
    report: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("demo-report.html"),
    repository: Annotated[Path | None, typer.Option(help="Another model repository.")] = None,
    kafka: Annotated[bool, typer.Option("--kafka", help="On a real Apache Kafka.")] = False,
) -> None:
    """Run everything on this machine: broker, Triton, worker, a drawn shop; then sum up.

    It goes by the options below alone; settings in the environment count for nothing here.
    """
    from stream_judge.commands.show_demo import show_demo
    from stream_judge.demo.runner import DemoOptions

    options = DemoOptions(events, seed, keep, report, repository, kafka)
    raise typer.Exit(show_demo(options, as_json=as_json))


@app.command()
def doctor(
    settings: SettingsFile = None,
    flags: Flags = None,
    repository: Annotated[
        Path | None, typer.Option(help="Model repository that Triton should serve.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check broker, topics, Triton, model and policies; say what to do.

    A finding is `ok`, a `note` (a worker runs all the same) or `wrong`; the exit code is 69 if
    the broker could not be asked, 1 if anything else is wrong, and 0 otherwise. With `--json`:
    `{"ok": ..., "findings": [{"what": ..., "ok": ..., "status": ..., "detail": ...}]}`, where
    `ok` is false for what is wrong alone.
    """
    from stream_judge.doctor import examine, show
    from stream_judge.logs import set_up_logs

    found = _settings(settings, flags)
    set_up_logs(found.log)
    findings = asyncio.run(examine(found, repository))
    raise typer.Exit(show(findings, as_json=as_json))


@topics_app.command("create")
def topics_create(
    settings: SettingsFile = None,
    flags: Flags = None,
    partitions: Annotated[int, typer.Option(min=1, help="Of source and verdicts.")] = 12,
    replication: Annotated[int, typer.Option(min=1, help="Replicas.")] = 3,
) -> None:
    """Make the topics that are missing."""
    from stream_judge.topics import create_topics

    found = _settings(settings, flags)
    for line in asyncio.run(create_topics(found.kafka, partitions, replication)):
        typer.echo(line)


@topics_app.command("check")
def topics_check(settings: SettingsFile = None, flags: Flags = None) -> None:
    """Hold the topics against what the worker needs."""
    from stream_judge.topics import check_topics

    problems = 0
    marks = {"ok": "ok    ", "note": "note  ", "wrong": "WRONG "}
    for found in asyncio.run(check_topics(_settings(settings, flags).kafka)):
        typer.echo(marks[found.status] + found.detail)
        problems += not found.ok
    raise typer.Exit(1 if problems else 0)


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id of a LLaVA checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder of the model repository.")],
    dtype: Annotated[str, typer.Option(help="How weights are stored: fp32 or fp16.")] = "fp16",
    verify: Annotated[bool, typer.Option(help="Compare with transformers.")] = False,
) -> None:
    """Turn a LLaVA checkpoint into a Triton model repository.

    Verdicts call the model by `stream_judge_name` and `stream_judge_version` of the checkpoint's
    config.json; without them by the folder's name or the hub id, version 1.
    """
    if dtype not in ("fp32", "fp16"):
        raise ConfigError(f"--dtype {dtype}: fp32 or fp16")
    need("export", *_EXPORT_MODULES)
    from stream_judge.export.exporter import export_checkpoint

    report = export_checkpoint(checkpoint, out, dtype=dtype, verify=verify, say=typer.echo)  # type: ignore[arg-type]  # checked above
    typer.echo(f"model digest {report.digest}")


def _environment_problem(exc: OSError) -> EnvironmentProblem | None:
    """A file or a disk that is not as a command needs it; None for all else."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentProblem(f"no room left on the disk: {exc.filename or exc}")
    if exc.filename is not None:
        return EnvironmentProblem(f"{exc.filename}: {exc.strerror}")
    return None


@cache
def full_app() -> typer.Typer:
    """All commands, also those that live in modules of their own."""
    from stream_judge.commands import explain, letters
    from stream_judge.training.cli import app as training_app

    app.add_typer(training_app, name="train")
    app.add_typer(letters.app, name="dead-letters")
    app.command("explain")(explain.explain_record)
    return app


def main() -> None:
    """Run the command line; errors of ours are one line, with their code."""
    # First, because loading takes seconds, in which a worker has nothing to drain.
    with exits.stopping_at_once() if sys.argv[1:2] == ["worker"] else nullcontext():
        _run()


def _say(error: StreamJudgeError) -> None:
    Console(stderr=True, soft_wrap=True).print(
        f"stream-judge: {error.code}: {error.message}", markup=False, highlight=False
    )


def _exit_code(error: StreamJudgeError) -> int:
    """Of a command that ends for an error; 1 is for its answer, where that is no good one."""
    if isinstance(error, (ConfigError, ExportError)):
        return 2
    return exits.UNAVAILABLE if isinstance(error, BrokerError) else 1


def _run() -> None:
    commands = full_app()
    try:
        # Without its standalone mode typer hands back the code of an exit, also of Ctrl-C.
        code = commands(standalone_mode=False)
        if isinstance(code, int):
            sys.exit(code)
    except typer.Exit as exc:
        sys.exit(exc.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except StreamJudgeError as exc:
        _say(exc)
        sys.exit(_exit_code(exc))
    except OSError as exc:
        problem = _environment_problem(exc)
        if problem is None:
            raise
        sys.stderr.write(f"stream-judge: {problem.code}: {problem.message}\n")
        sys.exit(2)
    except Exception as exc:
        # typer's usage errors know how to show themselves.
        show = getattr(exc, "show", None)
        if show is None:
            raise
        show()
        sys.exit(int(getattr(exc, "exit_code", 2)))
