from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stream_judge import assembly
from stream_judge.errors import ConfigError, PolicyError
from stream_judge.mapping import Mapping
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
        ({"policies": "slow"}, PolicyError, "31 slow pictures .* up to 160 s, and half of .* 150"),
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
        "slow": "images: {max: 31, aggregate: all}",
    }
    for name, line in rest.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(f"id: a\nversion: 1\ninstruction: x\n{line}\n")
    monkeypatch.setattr(assembly, "TritonJudge", NeverAsked)
    settings = read_settings(**{name: tmp_path / path for name, path in broken.items()})
    with pytest.raises(error, match=said):
        async with assembly.build_judge(settings, Metrics()):
            pass


@pytest.mark.parametrize(
    ("rules", "changed"),
    [
        ("max: 30, aggregate: any", {}),
        # One picture is judged, however many there are.
        ("max: 50", {}),
        ("max: 50, aggregate: all", {"window": {"stall_limit_s": 500}}),
        ("max: 50, aggregate: all", {"images": {"decoders": 4}}),
        ("max: 50, aggregate: all", {"images": {"decode_timeout_s": 3}}),
    ],
)
def test_as_many_pictures_as_the_decoders_can_take_in_time_are_a_policy(
    rules: str, changed: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(f"id: a\nversion: 1\ninstruction: x\nimages: {{{rules}}}\n")
    settings = read_settings(policies=tmp_path, **changed)
    mapping = Mapping.read(settings.mapping)
    assert len(assembly.read_policies(settings, mapping)) == 1
