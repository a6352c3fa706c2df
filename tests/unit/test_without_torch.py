"""The demo and the evaluation need no torch: neither their locks have it, nor does their code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stream_judge.resources import resource
from stream_judge.serving.manifest import manifest_digest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
# What export and training bring, as packages and as modules.
HEAVY = {
    "torch",
    "transformers",
    "optimum",
    "optimum-onnx",
    "onnx",
    "matplotlib",
    "accelerate",
    "triton",
}
MODULES = tuple(sorted(name for name in HEAVY if "-" not in name))
# A command line of ours on which none of them can be imported. Two rows of samples are enough:
# each of them costs seconds.
BLOCKED = f"""
import sys
sys.modules.update(dict.fromkeys({MODULES!r}))
from stream_judge.training import evaluate
evaluate.SHOTS = (0, 1)
from stream_judge.cli import main
main()
"""


def locked(name: str) -> set[str]:
    """The packages of a lock; extras in brackets are none of their names."""
    lines = (REQUIREMENTS / name).read_text(encoding="utf-8").splitlines()
    pins = (re.match(r"([a-z0-9._-]+)(\[[^]]*\])?==", line) for line in lines)
    return {pin[1] for pin in pins if pin}


@pytest.mark.parametrize("lock", ["demo.txt", "gpu.txt"])
def test_what_the_demo_installs_has_neither_torch_nor_what_comes_with_it(lock: str) -> None:
    packages = locked(lock)
    assert {"aiokafka", "nvidia-pytriton", "tokenizers"} <= packages
    assert not packages & HEAVY
    assert not {name for name in packages if name.startswith("torch")}


def test_the_lock_of_the_development_environment_has_them() -> None:
    # So the names above are those that a lock would have.
    assert {"torch", "transformers", "optimum", "optimum-onnx", "onnx"} <= locked("dev.txt")


def test_an_evaluation_runs_without_torch_and_ends_with_its_figures(tmp_path: Path) -> None:
    smallest = ("--pairs", "160", "--episodes", "20", "--drawings", "50")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BLOCKED, "train", "eval", "--json", *smallest],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    *shown, last = run.stdout.splitlines()
    figures = json.loads(last)
    assert (figures["pairs"], figures["split"], figures["seed"]) == (160, "test", 0)
    assert figures["model"] == manifest_digest(resource("model_repo"))
    # The whole set says .94; guessing says .50.
    assert figures["overall"] > 0.85
    assert list(figures["samples"]) == ["0", "1"]
    table = "\n".join(shown)
    assert "judgement, test split, seed 0" in table
    assert f"{figures['overall']:.3f}" in table
    assert "judging 160 pairs" in run.stderr
