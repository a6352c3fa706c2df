"""`stream-judge train`: training and evaluation commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from stream_judge.extras import need

app = typer.Typer(help="Train and evaluate tiny-llava-re.", no_args_is_help=True)


@app.command("run")
def run(
    out: Annotated[Path, typer.Option(help="Folder of the run; an unfinished one goes on.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of drawings, texts and weights.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Decoder steps.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Train from scratch to OUT/checkpoint; stop it with Ctrl-C, run it again to go on."""
    from dataclasses import replace

    need("train", "matplotlib", "tokenizers", "torch", "transformers")
    from stream_judge.training.run import RunOptions, train_run

    options = RunOptions(seed=seed, threads=threads)
    if steps is not None:
        share = steps // 7
        opening, ending = min(options.opening, share), min(options.ending, share)
        options = replace(options, steps=steps, opening=opening, ending=ending)
    checkpoint = train_run(out, options, say=typer.echo)
    typer.echo(f"checkpoint written to {checkpoint}")


@app.command("eval")
def eval_(
    repository: Annotated[
        Path | None, typer.Option(help="Model repository; default: the one that ships.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=160, help="Pairs of picture and text.")] = 2000,
    episodes: Annotated[int, typer.Option(min=20, help="Episodes a cell of samples.")] = 600,
    drawings: Annotated[int, typer.Option(min=50, help="Full-size drawings.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed: another held-out set.")] = 0,
    split: Annotated[
        Literal["test", "dev"], typer.Option(help="dev: to choose by, never seen in training.")
    ] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object as last line.")] = False,
) -> None:
    """Judge held-out drawings and texts with a model repository (ONNX Runtime, no torch)."""
    need("embedded", "onnxruntime", "tokenizers")
    from stream_judge.resources import resource
    from stream_judge.training.evaluate import evaluate
    from stream_judge.training.scorer import RepositoryScorer, draw_pool

    notes = Console(stderr=True)
    scorer = RepositoryScorer(repository or resource("model_repo"))
    notes.print(f"drawing {drawings} products of the {split} split")
    pool = draw_pool(drawings, seed, scorer.pixels, split=split)
    figures = evaluate(
        scorer,
        pool,
        pairs=pairs,
        episodes=episodes,
        seed=seed,
        split=split,
        say=lambda s: notes.print(s),
    )
    figures = {**figures, "split": split, "seed": seed, "model": scorer.digest}
    _show(figures)
    if as_json:
        typer.echo(json.dumps(figures))


def _show(figures: dict[str, Any]) -> None:
    console = Console()
    title = f"judgement, {figures['split']} split, seed {figures['seed']}"
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.3f}")
        elif isinstance(value, dict) and name != "samples":
            for key, part in value.items():
                table.add_row(f"{name}: {key}", f"{part:.3f}")
    console.print(table)
    columns = list(next(iter(figures["samples"].values())))
    samples = Table("samples", *columns, title="accuracy by number of samples (titles)")
    for shots, row in figures["samples"].items():
        cells = ["-" if row[name] is None else f"{row[name]:.3f}" for name in columns]
        samples.add_row(shots, *cells)
    console.print(samples)
