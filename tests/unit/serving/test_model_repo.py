"""The model repository that is kept in the tree serves the code that is kept beside it."""

from __future__ import annotations

import ast
import re
import sys
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


def test_the_containers_packages_are_those_that_are_imported() -> None:
    """The Dockerfile of docs/design.md installs what the repository imports, and no more."""
    modules = set()
    for path in THERE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module)
    # What is Triton's own, and what lies beside model.py.
    given = sys.stdlib_module_names | {"triton_python_backend_utils", "serving"}
    design = (HERE.parents[1] / "docs/design.md").read_text()
    installed = design.partition("RUN pip install")[2].partition("COPY")[0]
    assert set(re.findall(r"'([a-z]+)[<>=]", installed)) == (
        {name.partition(".")[0] for name in modules} - given
    )
