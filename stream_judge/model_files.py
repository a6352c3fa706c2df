"""The files of a model repository, held against its manifest.

A verdict names its model by the manifest's digest alone: weights that were put in another's
place would go by the old name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from stream_judge.errors import EnvironmentProblem

# Small enough that a stop is heard within a fraction of a second, from a slow disk too.
_BLOCK_BYTES = 16 * 1024 * 1024
_CURE = "export again, or copy the whole repository again"


def check_files(
    repository: Path, *, is_stopped: Callable[[], bool] = lambda: False
) -> tuple[str, ...]:
    """The `config.pbtxt` files that were edited since the export; all else is as it was then.

    They are the operator's to edit (memory, instances), and no weights.

    Args:
        repository: As `stream-judge export` writes it; every listed file is read.
        is_stopped: Asked between blocks; once it says so, the rest goes unread.

    Raises:
        EnvironmentProblem: A listed file is missing or has other bytes, a version folder that
            Triton would serve is not listed, or there is no manifest.
    """
    files = _listed(repository)
    edited = []
    for name, digest in sorted(files.items()):
        found = _digest(repository / name, name, repository, is_stopped)
        if found is None:
            break
        if found == digest:
            continue
        if not name.endswith("config.pbtxt"):
            raise EnvironmentProblem(
                f"{repository}: {name} is not the file that manifest.json lists (sha256 "
                f"{found[:12]}, listed {digest[:12]}), and verdicts would name the wrong model; "
                f"{_CURE}"
            )
        edited.append(name)
    _check_versions(repository, files)
    return tuple(edited)


def _listed(repository: Path) -> dict[str, str]:
    """The sha256 of each file by its path in the repository."""
    path = repository / "manifest.json"
    if not path.is_file():
        raise EnvironmentProblem(f"{repository}: no model repository (manifest.json)")
    try:
        files = json.loads(path.read_bytes())["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise EnvironmentProblem(
            f"{path}: not a manifest of `stream-judge export`, it lists no files; {_CURE}"
        ) from exc


def _digest(path: Path, name: str, repository: Path, is_stopped: Callable[[], bool]) -> str | None:
    """A file's sha256; None if a stop came first."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                if is_stopped():
                    return None
                found.update(block)
    except OSError as exc:
        raise EnvironmentProblem(
            f"{repository}: {name} is in manifest.json and cannot be read ({exc.strerror}); {_CURE}"
        ) from exc
    return found.hexdigest()


def _check_versions(repository: Path, files: dict[str, str]) -> None:
    """Refuse a version that Triton would serve in place of the listed one: it takes the highest."""
    listed = {Path(name).parts[:2] for name in files}
    for model in {model for model, *_ in listed}:
        for folder in sorted((repository / model).iterdir()):
            if folder.name.isdecimal() and folder.is_dir() and (model, folder.name) not in listed:
                raise EnvironmentProblem(
                    f"{repository}: {model}/{folder.name} is not in manifest.json, and Triton "
                    "would serve it under the listed model's name; remove it"
                )
