from __future__ import annotations

import re
from pathlib import Path

import pytest

from stream_judge import exits
from stream_judge.errors import (
    DeadLetterLimitError,
    LaneLostError,
    OffsetError,
    PublishError,
    StalledError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (MemoryError(), 70),
        (StalledError("stuck"), 71),
        (LaneLostError("moved"), 72),
        (OffsetError("gone"), 73),
        (DeadLetterLimitError("many"), 74),
        (PublishError("no"), 75),
    ],
)
def test_an_error_has_its_exit_code(error: BaseException | None, code: int) -> None:
    assert exits.exit_code(error) == code


def test_every_code_is_in_the_table() -> None:
    page = Path(__file__).parents[2].joinpath("docs/reliability.md").read_text(encoding="utf-8")
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    codes = {value for name, value in vars(exits).items() if name.isupper() and name[0] != "_"}
    assert codes <= table
