from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_judge import assembly
from stream_judge.errors import ConfigError, PolicyError
from stream_judge.metrics import Metrics
from stream_judge.settings import read_settings


class NeverAsked:
    """A model server that nobody may ask yet."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise AssertionError("asked")


@pytest.mark.parametrize(
    ("broken", "error", "said"),
    [
        ({"mapping": "none.yaml"}, ConfigError, "none.yaml"),
        ({"policies": "none"}, PolicyError, "no policies"),
        ({"policies": "fields"}, PolicyError, "text.fields names nothing"),
        ({"policies": "pictures"}, PolicyError, "picture gone.png is not there"),
    ],
)
async def test_what_the_operator_wrote_is_read_before_the_model_server_is_asked(
    broken: dict[str, str],
    error: type[Exception],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    rest = {
        "fields": "text: {fields: [nothing]}",
        "pictures": "samples: [{image: gone.png, text: a mug, answer: relevant}]",
    }
    for name, line in rest.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(f"id: a\nversion: 1\ninstruction: x\n{line}\n")
    monkeypatch.setattr(assembly, "TritonJudge", NeverAsked)
    settings = read_settings(**{name: tmp_path / path for name, path in broken.items()})
    with pytest.raises(error, match=said):
        async with assembly.build_judge(settings, Metrics()):
            pass
