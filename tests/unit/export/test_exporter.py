from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="export tests need torch: pip install '.[export]'")

from stream_judge.errors import ExportError
from stream_judge.export import exporter
from stream_judge.export.exporter import DType, export_checkpoint

TEXT = SimpleNamespace(vocab_size=1, hidden_size=1)
SOURCE: Any = SimpleNamespace(parameters=1, config=SimpleNamespace(text_config=TEXT))


def test_the_folder_that_one_stands_in_is_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(model: object, source: object, root: Path, *_: object) -> None:
        # Beside the target: in it, it would be in the way of its own repository.
        assert root.parents[1] == tmp_path
        root.mkdir()
        (root / "manifest.json").write_text("new")

    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    # What is traced takes seconds, and plays no part.
    monkeypatch.setattr(exporter, "read_checkpoint", lambda _: SOURCE)
    monkeypatch.setattr(exporter, "_load", lambda _: None)
    monkeypatch.setattr(exporter, "_write", write)
    report = export_checkpoint("made", Path())
    assert report.out == tmp_path / "out"
    assert (tmp_path / "out/manifest.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("dtype", "said"), [("fp16", "1e-03; float32 .*: try --dtype fp32$"), ("fp32", "> 1e-03$")]
)
def test_a_difference_that_storage_makes_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: DType, said: str
) -> None:
    monkeypatch.setattr("stream_judge.export.verify.largest_difference", lambda *_: 2e-3)
    with pytest.raises(ExportError, match=said):
        exporter._verify(None, SOURCE, tmp_path, dtype, lambda _: None)
