from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from stream_judge.decision import aggregate, calibrate, decide
from stream_judge.errors import ImageDecodeError, NoPolicyError, PolicyError
from stream_judge.events import ProductUpdate
from stream_judge.images.loader import LoadedImage
from stream_judge.images.spec import PixelSpec
from stream_judge.policy import (
    AppliesTo,
    Calibration,
    PolicyFile,
    PolicySet,
    Thresholds,
    check_fields,
    load_policies,
    read_policy_files,
)
from stream_judge.resources import resource
from stream_judge.testing import grey


async def decode(data: bytes) -> LoadedImage:
    if not data.startswith(b"\x89PNG"):
        raise ImageDecodeError("no picture")
    return LoadedImage("", f"{len(data):064x}", 8, 8, grey())


def update(**fields: str) -> ProductUpdate:
    return ProductUpdate("p", None, (), (), **fields)


async def test_shipped_policies_load_and_choose_by_seller() -> None:
    policies = await load_policies(resource("policies"), PixelSpec(8), decode)
    chosen = {s: policies.choose(update(seller=s)).id for s in ("sample-studio", "x")}
    assert chosen == {"sample-studio": "by-samples", "x": "exact"}
    assert len(next(p for p in policies.policies if p.id == "by-samples").file.samples) == 4


async def test_fields_that_no_update_has_are_refused(tmp_path: Path) -> None:
    async def load(rules: str) -> PolicySet:
        text = f"id: p\nversion: 1\ninstruction: Compare.\n{rules}"
        (tmp_path / "p.yaml").write_text(text)
        return await load_policies(tmp_path, PixelSpec(8), decode)

    mistyped = await load("text: {fields: [title, desciption]}")
    with pytest.raises(PolicyError, match=r"policy p: .* desciption; .* title, description"):
        check_fields(mistyped.policies, ["title", "description"])
    by_default = await load("")
    check_fields(by_default.policies, ["title"])
    with pytest.raises(PolicyError, match="the mapping's text has name"):
        check_fields(by_default.policies, ["name"])


def test_reasons_that_nobody_would_write_are_refused() -> None:
    with pytest.raises(ValueError, match="this version writes none"):
        PolicyFile(id="p", version=1, instruction="Compare.", rationale="always")


async def test_digest_covers_what_changes_a_verdict_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(resource("policies"), folder)

    async def digest() -> str:
        policies = await load_policies(folder, PixelSpec(8), decode)
        return next(p.digest for p in policies.policies if p.id == "by-samples")

    first = await digest()
    path = folder / "by-samples.yaml"
    text = path.read_text()
    path.write_text(text.replace("Another colour.", "It is green."))
    assert await digest() == first
    path.write_text(re.sub(r"publish: [0-9.]+", "publish: 0.9", text))
    assert await digest() != first
    path.write_text(text)
    picture = folder / "samples/red-plain-chair.png"
    picture.write_bytes(picture.read_bytes() + b"0")
    assert await digest() != first


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id: a\nversion: 1\n", "instruction"),
        ("id: A b\nversion: 1\ninstruction: x\n", "id"),
        ("id: a\nversion: 1\ninstruction: x\nthresholds: {block: 0.9, publish: 0.1}\n", "block"),
        ("id: a\nversion: 1\ninstruction: x\nsurprise: 1\n", "surprise"),
        ("{", "policy a.yaml"),
        ("id: a\nversion: 1\ninstruction: x\ncalibration: {method: platt}\n", "parameters"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_by_name(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(PolicyError, match=said):
        read_policy_files(tmp_path)


def test_no_policy_and_a_repeated_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no policies"):
        read_policy_files(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("id: same\nversion: 1\ninstruction: x\n")
    with pytest.raises(PolicyError, match="twice"):
        read_policy_files(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "locale", "fits"),
    [
        ("ja", "ja-JP", True),
        ("ja-JP", "ja-JP", True),
        ("ja", "en-GB", False),
        ("ja", None, False),
        ("en-GB", "en_GB", True),
    ],
)
def test_a_language_fits_all_its_locales(wanted: str, locale: str | None, fits: bool) -> None:
    product = update() if locale is None else update(locale=locale)
    assert AppliesTo(locale=(wanted,)).fits(product) is fits


async def test_a_product_without_policy_is_an_error_that_says_what_to_do() -> None:
    policies = await load_policies(resource("policies"), PixelSpec(8), decode)
    only = type(policies)(policies.policies[:1])
    with pytest.raises(NoPolicyError, match="add one without applies_to"):
        only.choose(update(seller="x"))


def test_platt_scaling_is_the_identity_at_one_and_zero() -> None:
    identity = Calibration(method="platt", parameters=(1.0, 0.0))
    for score in (0.0, 0.1234, 0.5, 0.9, 1.0):
        assert calibrate(score, identity) == pytest.approx(score, abs=1e-4)
    assert calibrate(0.5, Calibration(method="platt", parameters=(1.0, -2.0))) < 0.2


def test_decisions_use_the_rounded_score() -> None:
    judgement = decide(0.49996, Calibration(), Thresholds(block=0.5, publish=0.5))
    assert (judgement.score, judgement.decision) == (0.5, "publish")


def test_aggregates() -> None:
    scores = [0.5, 0.2, 0.9]
    assert [aggregate(scores, how) for how in ("primary", "all", "any")] == [0.5, 0.2, 0.9]


def test_policy_schema_knows_every_field() -> None:
    assert set(PolicyFile.model_json_schema()["properties"]) >= {"instruction", "thresholds"}
