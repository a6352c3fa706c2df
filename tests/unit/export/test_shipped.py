"""The checkpoint and the repository that are kept in the tree belong together."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="export tests need torch: pip install '.[export]'")

from stream_judge.export.exporter import export_checkpoint
from stream_judge.resources import resource
from stream_judge.serving.bundle import pack_bundle
from stream_judge.training.scorer import RepositoryScorer

# Here and not among the settings of pytest, which would import torch for every run.
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")

ROOT = Path(__file__).parents[3]
CHECKPOINT = ROOT / "checkpoints/tiny-llava-re"
LIMIT = 12_000_000


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_both_are_small_and_the_manifest_tells_the_truth() -> None:
    repository = resource("model_repo")
    assert _size(CHECKPOINT) <= LIMIT
    assert _size(repository) <= LIMIT
    manifest = json.loads((repository / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((repository / name).read_bytes()).hexdigest() == digest, name


def test_the_repository_holds_what_its_manifest_lists_and_nothing_else() -> None:
    repository = resource("model_repo")
    listed = json.loads((repository / "manifest.json").read_text())["files"]
    # What Python compiles beside the code that Triton runs is nobody's.
    there = {
        path.relative_to(repository).as_posix()
        for path in repository.rglob("*")
        if not path.is_dir() and "__pycache__" not in path.parts
    }
    assert there == {*listed, "manifest.json"}


def test_the_kept_checkpoint_in_float32_agrees_with_transformers(tmp_path: Path) -> None:
    report = export_checkpoint(CHECKPOINT, tmp_path / "exact", dtype="fp32", verify=True)
    assert report.difference is not None
    assert report.difference <= 1e-3


def test_export_of_the_kept_checkpoint_judges_as_the_repository_does(tmp_path: Path) -> None:
    made = export_checkpoint(CHECKPOINT, tmp_path / "again", dtype="fp16").out
    pixels = np.random.default_rng(3).integers(0, 256, (12, 64, 64, 3)).astype(np.uint8)
    texts = [f"{i} striped green mugs {'in a box ' * i}" for i in range(12)]
    bundle = pack_bundle("Ignore the colour; everything else must match.", [], size=64)
    scores = [
        RepositoryScorer(folder).score(bundle, pixels, texts)
        for folder in (made, resource("model_repo"))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert len(set(scores[0])) > 1
