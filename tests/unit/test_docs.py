from __future__ import annotations

import pytest

from stream_judge.docs import _keys, _rows
from stream_judge.policy import PolicyFile
from stream_judge.settings import KafkaSettings


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("PUBLISHER", "`transactional`, `plain`"),
        ("ON_MISSING_OFFSET", "`earliest`, `latest`"),
        ("MAX_RECORD_BYTES", "≥ 32000"),
        ("SASL_USERNAME", "-"),
    ],
)
def test_the_settings_page_names_bounds_and_choices(name: str, bounds: str) -> None:
    (row,) = (row for row in _rows(KafkaSettings, "") if row.startswith(f"| `{name}`"))
    assert row.split(" | ")[2] == bounds


@pytest.mark.parametrize(
    ("key", "default", "bounds"),
    [
        ("id", "needed", "-"),
        ("version", "needed", "≥ 1"),
        ("applies_to.locale", "-", "-"),
        ("samples[].answer", "needed", "`relevant`, `not_relevant`"),
        ("images.aggregate", '`"primary"`', "`primary`, `all`, `any`"),
        ("thresholds.block", "`0.5`", "≥ 0 ≤ 1"),
    ],
)
def test_the_page_of_policy_keys_goes_into_parts(key: str, default: str, bounds: str) -> None:
    (row,) = (row for row in _keys(PolicyFile, "") if row.startswith(f"| `{key}`"))
    assert row.split(" | ")[1:3] == [default, bounds]
