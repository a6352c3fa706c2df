from __future__ import annotations

import re
from pathlib import Path

from stream_judge import serving
from stream_judge.export.repository import _MODULES

SOURCE = Path(serving.__file__).parent


def imported(module: str) -> set[str]:
    """Modules of the package that one imports, by whichever of its two names."""
    text = (SOURCE / f"{module}.py").read_text()
    # Not by `ast`: CPython 3.11 can fail to build a tree while garbage is collected (gh-106905).
    found = re.findall(r"^ *from \.?([\w.]+) import", text, re.MULTILINE)
    names = {name.removeprefix("serving.") for name in found}
    return {name for name in names if (SOURCE / f"{name}.py").is_file()}


def test_a_repository_gets_every_module_that_its_code_imports() -> None:
    needed, new = {"__init__"}, {"triton_decoder"}
    while new:
        new = set().union(*map(imported, new)) - needed
        needed |= new
    assert needed == set(_MODULES)
