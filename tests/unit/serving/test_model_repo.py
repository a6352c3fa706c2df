"""The model repository that is kept in the tree serves the code that is kept beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_judge import serving
from stream_judge.export.repository import _MODULES
from stream_judge.resources import resource

HERE = Path(serving.__file__).parent
THERE = resource("model_repo") / "language_decoder/1"
FILES = {
    "model.py": "triton_decoder.py",
    **{f"serving/{name}.py": f"{name}.py" for name in _MODULES},
}


@pytest.mark.parametrize("copy", FILES)
def test_what_is_served_is_the_code_here(copy: str) -> None:
    assert (THERE / copy).read_bytes() == (HERE / FILES[copy]).read_bytes(), "export anew"


def test_nothing_else_is_served() -> None:
    there = {str(path.relative_to(THERE)) for path in THERE.rglob("*.py")}
    assert there == set(FILES)
