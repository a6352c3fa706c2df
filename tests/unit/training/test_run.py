from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stream_judge.errors import ConfigError
from stream_judge.training import run as run_module
from stream_judge.training import trainer as trainer_module
from stream_judge.training.network import NetworkConfig
from stream_judge.training.run import RunOptions, train_run
from stream_judge.training.schedule import ENDING, OPENING, SHORT, WHOLE, Mix, Schedule
from stream_judge.training.vision import Bank

# Through every mix: one step of the opening, one of short rows, two of whole ones, two at the end.
OPTIONS = RunOptions(seed=4, drawings=60, vision_steps=2, steps=6, opening=1, ending=2, threads=1)


class Stopped(Exception):
    pass


class SmallBatches(Schedule):
    """The schedule with eight episodes in a batch."""

    def mix(self, step: int) -> Mix:
        return tuple((weight, kind, 8) for weight, kind, _ in super().mix(step))


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, small: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "_EVERY", 1)
    monkeypatch.setattr(trainer_module, "READING_ROWS", 64)
    monkeypatch.setattr(
        run_module,
        "Schedule",
        lambda *lengths: SmallBatches(*lengths, keep_every=2, measure_every=100),
    )
    monkeypatch.setattr(trainer_module.Trainer, "measure", lambda self: {"title": 0.5})
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)

    def stop_after(step: int) -> Callable[[str], None]:
        def say(line: str) -> None:
            if json.loads(line).get("step") == step and json.loads(line)["stage"] == "judge":
                raise Stopped

        return say

    whole = train_run(tmp_path / "whole", OPTIONS, say=lambda _: None, network_config=small)
    # What takes longest to make, and is the same.
    (tmp_path / "cut").mkdir()
    for name in ("bank-train.npz", "bank-dev.npz", "tokenizer.json"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "cut")
    # Before the ending, and inside it.
    for step in (3, 5):
        with pytest.raises(Stopped):
            train_run(tmp_path / "cut", OPTIONS, say=stop_after(step), network_config=small)
    resumed = train_run(tmp_path / "cut", OPTIONS, say=lambda _: None, network_config=small)

    log = _lines(tmp_path / "cut" / "log.jsonl")
    assert [entry["stage"] for entry in log].count("resume") == 2
    assert [entry["step"] for entry in log if entry["stage"] == "judge"] == [1, 2, 3, 3, 4, 5, 5, 6]
    name = "model.safetensors"
    assert (whole / name).read_bytes() == (resumed / name).read_bytes()
    assert (tmp_path / "whole" / "curve.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="other options"):
        train_run(
            tmp_path / "cut",
            RunOptions(seed=5, drawings=60),
            say=lambda _: None,
            network_config=small,
        )


def test_the_options_of_these_tests_pass_through_every_mix() -> None:
    schedule = Schedule(OPTIONS.steps, OPTIONS.opening, OPTIONS.ending)
    mixes = [schedule.mix(step) for step in range(OPTIONS.steps)]
    assert mixes == [OPENING, SHORT, WHOLE, WHOLE, ENDING, ENDING]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": 799}, "opening 300 and ending 500 are more than the 799 steps"),
        ({"steps": 6, "opening": 4, "ending": 3}, "opening 4 and ending 3"),
        ({"steps": 6, "opening": 7, "ending": 0}, "opening 7 and ending 0"),
        ({"steps": 4, "opening": 2}, "opening 2 and ending 500"),
    ],
)
def test_an_opening_and_an_ending_that_are_longer_than_the_run_are_refused(
    given: dict[str, int], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        RunOptions(**given)


@pytest.mark.parametrize("given", [{}, {"steps": 800}, {"steps": 1, "opening": 0, "ending": 0}])
def test_an_opening_and_an_ending_may_fill_the_run(given: dict[str, int]) -> None:
    RunOptions(**given)


def _cut(path: str | Path) -> None:
    Path(path).write_bytes(b"half")
    raise Stopped


def test_a_result_that_was_cut_short_is_none(
    tmp_path: Path, small: NetworkConfig, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer: Any = SimpleNamespace(save=lambda path, **_: _cut(path))
    monkeypatch.setattr(run_module, "train_tokenizer", lambda *_: tokenizer)
    monkeypatch.setattr(run_module, "train_vision", lambda *_, **__: torch.nn.Linear(1, 1))
    monkeypatch.setattr(torch, "save", lambda _, path: _cut(path))
    with pytest.raises(Stopped):
        run_module._tokenizer(tmp_path, small, OPTIONS, lambda _: None)
    with pytest.raises(Stopped):
        run_module._vision(tmp_path, small, OPTIONS, bank, bank, lambda _: None)
    assert not [name for name in ("tokenizer.json", "vision.pt") if (tmp_path / name).exists()]


def test_a_line_that_was_cut_short_leaves_the_log(tmp_path: Path, small: NetworkConfig) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"stage": "draw"}\n{"stage": "jud')
    with pytest.raises(Stopped):
        train_run(tmp_path, OPTIONS, say=_stop, network_config=small)
    assert [line["stage"] for line in _lines(log)] == ["draw", "draw"]


def _stop(_: str) -> None:
    raise Stopped


def test_drawings_are_of_the_networks_size(
    tmp_path: Path, small: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(count: int, seed: int, *, size: int = 64, processes: int) -> tuple[Any, Any]:
        return np.zeros((count, size, size, 3), np.uint8), np.zeros((count, 4), np.int8)

    monkeypatch.setattr(run_module, "render_bank", render)
    config = replace(small, image_size=32)
    bank = run_module._bank(tmp_path, "train", config, OPTIONS, 3, 1_000, lambda _: None)
    assert bank.pixels.shape == (3, 32, 32, 3)
