from __future__ import annotations

import pytest

from stream_judge.docs import _rows
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
