from __future__ import annotations

import base64
import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stream_judge.catalogue.attributes import ATTRIBUTES
from stream_judge.catalogue.events import (
    PLACEHOLDER,
    TOO_LARGE_BYTES,
    _kinds,
    _plan,
    make_catalogue,
)
from stream_judge.catalogue.rules import COUNTS

COUNT, SEED = 100, 11


def files(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
    }


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shop")
    report = make_catalogue(COUNT, SEED, out, processes=2)
    assert (report.out, report.events) == (out, COUNT)
    assert report.pictures == len(list((out / "pictures").iterdir()))
    return out


def test_the_same_seed_gives_the_same_bytes_however_many_processes_draw(tmp_path: Path) -> None:
    for name, processes, seed in (("a", 1, 5), ("b", 2, 5), ("c", 1, 6)):
        make_catalogue(12, seed, tmp_path / name, processes=processes)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_a_shop_that_was_drawn_before_leaves_no_pictures(tmp_path: Path) -> None:
    fresh, used = tmp_path / "fresh", tmp_path / "used"
    (used / "pictures").mkdir(parents=True)
    for name in ("p-000001-0.gif", "p-000040-0.png", "mine.jpg"):
        (used / "pictures" / name).write_bytes(b"of another day")
    make_catalogue(2, 7, fresh, processes=1)
    make_catalogue(2, 7, used, processes=1)
    assert set(files(used)) - set(files(fresh)) == {"pictures/mine.jpg"}
    assert files(fresh).items() <= files(used).items()


def test_half_of_the_listings_match_and_the_rest_are_spread_evenly() -> None:
    plans = _plan(400, 3)
    differs = Counter(plan.differs for plan in plans)
    assert differs == {None: 200, 0: 50, 1: 50, 2: 50, 3: 50}
    assert set(Counter((plan.form, plan.language) for plan in plans).values()) == {40}


def test_texts_differ_from_pictures_in_what_the_truth_says(shop: Path) -> None:
    for line in lines(shop / "truth.jsonl"):
        told, shown = line["told"], line["shown"]
        different = [name for name in ATTRIBUTES if told[name] != shown[name]]
        assert different == ([line["differs"]] if line["differs"] else [])
        if line["expect"] == "judged":
            assert line["relevant"] == (line["differs"] not in COUNTS[line["policy"]])
        else:
            assert line["relevant"] is None


def test_faults_are_as_many_as_planned_and_of_every_kind() -> None:
    import random

    kinds = Counter(_kinds(400, random.Random(1)))
    outcomes = Counter(kind for kind, _ in kinds.elements())
    assert outcomes == {"judged": 368, "unjudgeable": 16, "dead_letter": 12, "tombstone": 4}
    assert len(kinds) == 1 + 4 + 3 + 1


def test_pictures_are_what_the_truth_says(shop: Path) -> None:
    events = lines(shop / "events.jsonl")
    for event, truth in zip(events, lines(shop / "truth.jsonl"), strict=True):
        if not isinstance(event.get("value"), dict):
            continue
        (picture,) = event["value"]["images"]
        path = shop / picture["url"].removeprefix(PLACEHOLDER + "/")
        assert path.is_relative_to(shop / "pictures")
        if truth["fault"] == "missing":
            assert not path.exists()
        elif truth["fault"] == "too_large":
            assert path.stat().st_size > TOO_LARGE_BYTES
        elif truth["fault"] in ("truncated", "no_picture"):
            with pytest.raises((OSError, SyntaxError)), Image.open(path) as image:
                image.load()
        else:
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                image.load()
                assert image.format in ("JPEG", "PNG", "WEBP")
                assert 375 <= min(image.size) <= max(image.size) <= 1600


def test_malformed_events_are_malformed_and_keep_their_key(shop: Path) -> None:
    events = lines(shop / "events.jsonl")
    for event, truth in zip(events, lines(shop / "truth.jsonl"), strict=True):
        assert event["key"] == truth["product_id"]
        if truth["expect"] == "tombstone":
            assert event["value"] is None
        if truth["expect"] != "dead_letter":
            continue
        raw = base64.b64decode(event["value_base64"])
        if truth["fault"] == "no_id":
            assert "id" not in json.loads(raw)
        else:
            with pytest.raises(ValueError):
                json.loads(raw.decode())
