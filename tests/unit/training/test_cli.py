from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stream_judge.training.cli import app


@pytest.mark.parametrize("arguments", [["run", "--out", "made"], ["eval"]], ids=["run", "eval"])
def test_a_seed_below_nothing_is_refused_before_anything_is_done(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*arguments, "--seed", "-1"])
    assert result.exit_code == 2
    assert "--seed" in result.output
    assert not list(tmp_path.iterdir())
