from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream_judge.errors import EnvironmentProblem
from stream_judge.export.repository import write_manifest
from stream_judge.model_files import check_files
from stream_judge.resources import resource


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model with weights, a configuration and a version folder, as `export` writes them."""
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/1/model.onnx").write_bytes(bytes(100))
    (tmp_path / "m/config.pbtxt").write_text("as exported")
    write_manifest(tmp_path, name="m", version="1")
    return tmp_path


def test_the_model_that_ships_is_that_of_its_manifest() -> None:
    assert check_files(resource("model_repo")) == ()


def test_one_flipped_byte_is_found_and_the_file_named(repository: Path) -> None:
    weights = bytearray(100)
    weights[70] = 1
    (repository / "m/1/model.onnx").write_bytes(weights)
    with pytest.raises(
        EnvironmentProblem, match=r"m/1/model\.onnx is not the file .* export again"
    ):
        check_files(repository)


def test_a_file_that_is_missing_is_named(repository: Path) -> None:
    (repository / "m/1/model.onnx").unlink()
    with pytest.raises(
        EnvironmentProblem, match=r"m/1/model\.onnx is in manifest\.json and cannot"
    ):
        check_files(repository)


def test_a_version_that_triton_would_prefer_is_named(repository: Path) -> None:
    (repository / "m/2").mkdir()
    with pytest.raises(EnvironmentProblem, match=r"m/2 is not in manifest\.json"):
        check_files(repository)


def test_a_configuration_is_the_operators_to_edit(repository: Path) -> None:
    (repository / "m/config.pbtxt").write_text("with less memory")
    assert check_files(repository) == ("m/config.pbtxt",)


def test_what_triton_leaves_behind_is_no_fault(repository: Path) -> None:
    (repository / "m/1/__pycache__").mkdir()
    (repository / "m/1/__pycache__/model.pyc").write_bytes(b"")
    (repository / "m/notes").mkdir()
    assert check_files(repository) == ()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": []}', '"x"'])
def test_a_manifest_that_lists_nothing_is_refused(repository: Path, content: str) -> None:
    (repository / "manifest.json").write_text(content)
    with pytest.raises(EnvironmentProblem, match="it lists no files"):
        check_files(repository)


def test_nothing_is_read_after_a_stop(repository: Path) -> None:
    manifest = json.loads((repository / "manifest.json").read_text())
    manifest["files"]["m/1/model.onnx"] = "0" * 64
    (repository / "manifest.json").write_text(json.dumps(manifest))
    assert check_files(repository, is_stopped=lambda: True) == ()
