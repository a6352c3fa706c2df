"""`stream-judge train run`: from nothing to a checkpoint, in one resumable command."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from stream_judge.catalogue.bank import render_bank
from stream_judge.errors import ConfigError
from stream_judge.training.checkpoint import save_checkpoint
from stream_judge.training.curve import draw_curve
from stream_judge.training.network import NetworkConfig
from stream_judge.training.schedule import Schedule
from stream_judge.training.tokenizer import train_tokenizer
from stream_judge.training.trainer import (
    Log,
    Material,
    Trainer,
    make_network,
    start_from_anchors,
)
from stream_judge.training.vision import AlignedVision, Bank, tower_features, train_vision

# Banks of different splits never share a seed.
TRAIN_BANK, DEV_BANK = 1_000, 5_000


@dataclass(frozen=True, slots=True)
class RunOptions:
    """A training run; together with the code it determines the checkpoint.

    Attributes:
        seed: Seed of everything.
        drawings: Size of the training bank.
        vision_steps: Steps of the vision stage, 128 drawings each.
        steps: Steps of the decoder stage.
        opening: How many of them, the first, use the short opening mix.
        ending: How many of them, the last, use the ending's.
        threads: CPU threads of torch and drawing processes.

    Raises:
        ConfigError: Opening and ending leave none of the steps for what is between.
    """

    seed: int = 0
    drawings: int = 50_000
    vision_steps: int = 2_400
    steps: int = 3_500
    opening: int = 300
    ending: int = 500
    threads: int = 2

    def __post_init__(self) -> None:
        # A schedule without the part between them would train, and say nothing.
        if self.opening + self.ending > self.steps:
            raise ConfigError(
                f"opening {self.opening} and ending {self.ending} are more than the {self.steps} "
                "steps of the run: give it more steps, or make them shorter"
            )


def bank_seed(seed: int, split: int) -> int:
    """Seed of a bank of drawings: splits and runs never meet."""
    return 10_000 * seed + split


def train_run(
    out: Path, options: RunOptions, *, say: Log, network_config: NetworkConfig | None = None
) -> Path:
    """Train, or go on where a stopped run was; returns the checkpoint's folder.

    Every stage keeps its result in `out`; a finished stage is not run again.

    Args:
        out: Folder of the run: banks, states, `log.jsonl`, `curve.png`, `checkpoint/`.
        options: What to run. A folder of another run is refused.
        say: Receives progress lines (JSON).
        network_config: Other sizes, for tests.

    Raises:
        ConfigError: If `out` holds a run with other options.
    """
    config = network_config or NetworkConfig()
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, options, config)
    torch.set_num_threads(options.threads)

    _drop_cut_line(out / "log.jsonl")

    def log(line: str) -> None:
        with (out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        say(line)

    train = _bank(out, "train", config, options, options.drawings, TRAIN_BANK, log)
    held = max(300, options.drawings * 3 // 50)
    dev = _bank(out, "dev", config, options, held, DEV_BANK, log)
    tokenizer = _tokenizer(out, config, options, log)
    vision = _vision(out, config, options, train, dev, log)
    network = make_network(config, options.seed)
    start_from_anchors(network, vision, tokenizer)
    trainer = Trainer(
        network,
        tokenizer,
        Material(tower_features(vision, train.pixels), train.attributes),
        Material(tower_features(vision, dev.pixels), dev.attributes),
        schedule=Schedule(options.steps, options.opening, options.ending),
        seed=options.seed,
        state_path=out / "state.pt",
        log=log,
    )
    if trainer.resume():
        log(json.dumps({"stage": "resume"}))
    trainer.run()
    save_checkpoint(config, vision.tower, network, tokenizer, out / "checkpoint")
    draw_curve(out / "log.jsonl", out / "curve.png")
    return out / "checkpoint"


def _claim(out: Path, options: RunOptions, config: NetworkConfig) -> None:
    # Threads change the time a run takes, not what it is.
    wanted = {"network": config.as_dict(), "options": _plain(replace(options, threads=0))}
    path = out / "run.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != wanted:
            raise ConfigError(
                f"{out} holds a run with other options; choose another --out or delete it"
            )
        return
    with _whole(path) as unfinished:
        unfinished.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write what is to be at `path`, whole: a run may be killed at any time."""
    unfinished = path.with_name(f"part-{path.name}")
    yield unfinished
    unfinished.replace(path)


def _drop_cut_line(log: Path) -> None:
    # Of a run that was killed while it wrote; the next entry would join it.
    if log.exists():
        os.truncate(log, log.read_bytes().rfind(b"\n") + 1)


def _plain(options: RunOptions) -> dict[str, int]:
    return {name: int(getattr(options, name)) for name in options.__slots__}


def _bank(
    out: Path,
    name: str,
    config: NetworkConfig,
    options: RunOptions,
    count: int,
    split: int,
    log: Log,
) -> Bank:
    path = out / f"bank-{name}.npz"
    if not path.exists():
        started = time.monotonic()
        pixels, attributes = render_bank(
            count,
            bank_seed(options.seed, split),
            size=config.image_size,
            processes=options.threads,
        )
        with _whole(path) as unfinished:
            np.savez(unfinished, pixels=pixels, attributes=attributes)
        seconds = round(time.monotonic() - started)
        log(json.dumps({"stage": "draw", "bank": name, "drawings": count, "seconds": seconds}))
    with np.load(path) as stored:
        return Bank(stored["pixels"], stored["attributes"])


def _tokenizer(out: Path, config: NetworkConfig, options: RunOptions, log: Log) -> Tokenizer:
    path = out / "tokenizer.json"
    if not path.exists():
        with _whole(path) as unfinished:
            train_tokenizer(config.vocabulary, options.seed).save(str(unfinished), pretty=False)
        log(json.dumps({"stage": "tokenizer", "entries": config.vocabulary}))
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _vision(
    out: Path, config: NetworkConfig, options: RunOptions, train: Bank, dev: Bank, log: Log
) -> AlignedVision:
    path = out / "vision.pt"
    if path.exists():
        vision = AlignedVision(config)
        vision.load_state_dict(torch.load(path, weights_only=True))
        return vision
    steps = options.vision_steps
    vision = train_vision(config, train, dev, steps=steps, seed=options.seed, log=log)
    with _whole(path) as unfinished:
        torch.save(vision.state_dict(), unfinished)
    return vision
