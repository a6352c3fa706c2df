"""The name of a model; standard library only, for `stream-judge doctor` reads it, too."""

from __future__ import annotations

import hashlib
from pathlib import Path


def manifest_digest(repository: Path) -> str:
    """The model's name in every verdict: sha256 of the repository's `manifest.json`."""
    return hashlib.sha256((repository / "manifest.json").read_bytes()).hexdigest()
