"""Files that ship with the package: the model repository, policies, mappings.

In a checkout they lie at its top; a wheel carries them inside the package.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """Path of a shipped file or folder, such as `model_repo` or `policies`."""
    carried = _PACKAGE / "_data" / name
    return carried if carried.exists() else _PACKAGE.parent / name
