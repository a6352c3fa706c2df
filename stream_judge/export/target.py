"""The folder that an export replaces: what it may hold, and how nothing of it is lost."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from stream_judge.errors import EnvironmentProblem, ExportError
from stream_judge.export.checkpoint import read_json

_MANIFEST = "manifest.json"


def check_target(out: Path) -> None:
    """Refuse to replace anything but a model repository of ours, or an empty folder.

    Raises:
        ExportError: `out` is a file, a mount point, no model repository, or holds files of
            somebody else.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ExportError(f"{out} is no folder; choose another")
    # Not Path.is_mount: a link into another file system is none, and can be renamed.
    if os.path.ismount(out):
        raise ExportError(f"{out} is a mount point and cannot be replaced; choose a folder in it")
    if not any(out.iterdir()):
        return
    listed = _listed(out)
    strangers = [name for name in _files(out) if name not in listed]
    if strangers:
        raise ExportError(
            f"{out} holds {', '.join(strangers[:3])}, which its {_MANIFEST} does not list: move "
            "that away, or choose another folder"
        )


def replace(root: Path, out: Path) -> None:
    """Put the folder `root` in the place of `out`.

    What was there goes into `root`'s parent, for whoever owns that to delete; it comes back
    if the new one cannot take its place.

    Raises:
        ExportError: `out` may not be replaced any more.
        OSError: A folder cannot be renamed.
    """
    check_target(out)
    if not out.exists():
        root.rename(out)
        return
    former = root.parent / "former"
    out.rename(former)
    try:
        root.rename(out)
    except OSError:
        former.rename(out)
        raise


@contextlib.contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Files that cannot be written, as errors of ours.

    Raises:
        EnvironmentProblem: There is no room left on the disk.
        ExportError: Any other reason.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentProblem(f"no room left on the disk of {out}") from exc
        raise ExportError(f"{out} cannot be written: {exc}") from exc


def _listed(out: Path) -> set[str]:
    try:
        manifest = read_json(out / _MANIFEST)
    except ExportError:
        manifest = {}
    files = manifest.get("files")
    if manifest.get("format") != 1 or not isinstance(files, dict):
        raise ExportError(f"{out} holds something that is no model repository; choose another")
    return {_MANIFEST, *files}


def _files(out: Path) -> list[str]:
    found = (p for p in out.rglob("*") if p.is_symlink() or not p.is_dir())
    names = sorted(path.relative_to(out) for path in found)
    # Python writes its compiled files beside the code that Triton runs.
    return [name.as_posix() for name in names if "__pycache__" not in name.parts]
