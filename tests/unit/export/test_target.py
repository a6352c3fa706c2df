from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from stream_judge.errors import EnvironmentProblem, ExportError
from stream_judge.export.target import check_target, disk_errors, replace

LISTED = "model/1/model.onnx"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    (out / LISTED).parent.mkdir(parents=True)
    (out / LISTED).write_text("old")
    manifest = {"format": 1, "name": "a", "version": "1", "files": {LISTED: "0" * 64}}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "scratch/repository"
    root.mkdir(parents=True)
    (root / "manifest.json").write_text("new")
    return root


def test_a_repository_is_replaced_whole(repository: Path, root: Path) -> None:
    replace(root, repository)
    assert [path.name for path in repository.iterdir()] == ["manifest.json"]
    assert (root.parent / "former" / LISTED).read_text() == "old"


def test_an_empty_folder_and_none_at_all_are_taken(tmp_path: Path, root: Path) -> None:
    check_target(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    replace(root, tmp_path / "empty")
    assert (tmp_path / "empty/manifest.json").read_text() == "new"


def test_what_python_writes_beside_the_code_is_nobodys(repository: Path) -> None:
    cache = repository / "model/1/__pycache__"
    cache.mkdir()
    (cache / "model.cpython-311.pyc").write_bytes(b"")
    check_target(repository)


def test_a_file_of_somebody_else_keeps_the_folder(repository: Path, root: Path) -> None:
    (repository / "model/1/thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"model/1/thesis\.txt"):
        replace(root, repository)
    assert (repository / LISTED).read_text() == "old"


def test_a_link_to_somebody_elses_folder_keeps_the_folder(repository: Path, tmp_path: Path) -> None:
    (repository / "photos").symlink_to(tmp_path)
    with pytest.raises(ExportError, match="photos"):
        check_target(repository)


def test_a_mount_point_is_refused_and_a_link_to_one_is_not(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="/proc is a mount point.*choose a folder in it"):
        check_target(Path("/proc"))
    (tmp_path / "out").symlink_to("/proc")
    with pytest.raises(ExportError, match="no model repository"):
        check_target(tmp_path / "out")


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", "{}", '{"manifest_version": 3}', '{"format": 1, "files": ["a"]}'],
)
def test_another_programs_manifest_keeps_the_folder(repository: Path, manifest: str) -> None:
    (repository / "manifest.json").write_text(manifest)
    with pytest.raises(ExportError, match="no model repository"):
        check_target(repository)


def test_a_file_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ExportError, match="is no folder"):
        check_target(tmp_path / "out")


def test_the_old_repository_comes_back_if_the_new_one_cannot_take_its_place(
    repository: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self == root:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        replace(root, repository)
    assert (repository / LISTED).read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_the_machines_problem(number: int) -> None:
    with pytest.raises(EnvironmentProblem, match="no room left"), disk_errors(Path("out")):
        raise OSError(number, os.strerror(number))


def test_any_other_failure_to_write_is_the_exports() -> None:
    with (
        pytest.raises(ExportError, match=r"out cannot be written.*denied"),
        disk_errors(Path("out")),
    ):
        raise PermissionError(errno.EACCES, "denied")
