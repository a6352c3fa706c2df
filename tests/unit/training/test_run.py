from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from stream_judge.errors import ConfigError
from stream_judge.training import schedule as schedule_module
from stream_judge.training import trainer as trainer_module
from stream_judge.training.network import NetworkConfig
from stream_judge.training.run import RunOptions, train_run

OPTIONS = RunOptions(seed=4, drawings=60, vision_steps=2, steps=4, opening=2, threads=1)


class Stopped(Exception):
    pass


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, small: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "_EVERY", 1)
    schedule = schedule_module.Schedule
    monkeypatch.setattr(
        "stream_judge.training.run.Schedule",
        lambda *lengths: schedule(*lengths, keep_every=2, measure_every=100),
    )
    monkeypatch.setattr(trainer_module.Trainer, "measure", lambda self: {"title": 0.5})
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: None)

    def stop_after_two(line: str) -> None:
        if json.loads(line).get("step") == 3 and json.loads(line)["stage"] == "judge":
            raise Stopped

    whole = train_run(tmp_path / "whole", OPTIONS, say=lambda _: None, network_config=small)
    with pytest.raises(Stopped):
        train_run(tmp_path / "cut", OPTIONS, say=stop_after_two, network_config=small)
    resumed = train_run(tmp_path / "cut", OPTIONS, say=lambda _: None, network_config=small)

    assert any(entry["stage"] == "resume" for entry in _lines(tmp_path / "cut" / "log.jsonl"))
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
