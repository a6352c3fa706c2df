from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, model_validator

from stream_judge.errors import ConfigError
from stream_judge.yaml_file import read_yaml


class Anything(BaseModel):
    a: object = None


class Defective(BaseModel):
    a: int

    @model_validator(mode="after")
    def _fail(self) -> Defective:
        raise LookupError("a defect")


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "no YAML: .*line 1, column 5"),
        ("a: 2024-13-01", "month must be in 1..12"),
        ("a: \x00", "special characters are not allowed"),
        ('a: !!int ""', "no YAML: a value that does not fit its tag"),
        ('a: !!bool "x"', "does not fit its tag"),
        ('a: !!timestamp "x"', "does not fit its tag"),
        ("a: !!timestamp {=: 1}", "does not fit its tag"),
        ("a: 1" + ":00" * 400 + ".0", "does not fit its tag"),
        ("[" * 1_200, "no YAML: nested too deeply"),
        ("{a: " * 1_200, "no YAML: nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as problem:
        read_yaml(written(tmp_path, text), Anything)
    assert "\n" not in problem.value.message


def test_a_defect_of_what_checks_a_file_is_no_mistake_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="a defect"):
        read_yaml(written(tmp_path, "a: 1"), Defective)
