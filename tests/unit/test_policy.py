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
    policies = await load_policies(read_policy_files(resource("policies")), PixelSpec(8), decode)
    chosen = {s: policies.choose(update(seller=s)).id for s in ("sample-studio", "x")}
    assert chosen == {"sample-studio": "by-samples", "x": "exact"}
    assert len(next(p for p in policies.policies if p.id == "by-samples").file.samples) == 4


def test_fields_that_no_update_has_are_refused(tmp_path: Path) -> None:
    def read(rules: str) -> list[PolicyFile]:
        text = f"id: p\nversion: 1\ninstruction: Compare.\n{rules}"
        (tmp_path / "p.yaml").write_text(text)
        return [file for _, file in read_policy_files(tmp_path)]

    mistyped = read("text: {fields: [title, desciption]}")
    with pytest.raises(PolicyError, match=r"policy p: .* desciption; .* title, description"):
        check_fields(mistyped, ["title", "description"])
    by_default = read("")
    check_fields(by_default, ["title"])
    with pytest.raises(PolicyError, match="the mapping's text has name"):
        check_fields(by_default, ["name"])


def test_reasons_that_nobody_would_write_are_refused() -> None:
    with pytest.raises(ValueError, match="this version writes none"):
        PolicyFile(id="p", version=1, instruction="Compare.", rationale="always")


async def test_digest_covers_what_changes_a_verdict_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    shutil.copytree(resource("policies"), folder)

    async def digest() -> str:
        policies = await load_policies(read_policy_files(folder), PixelSpec(8), decode)
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


def platt(parameters: str) -> str:
    calibration = f"{{method: platt, parameters: [{parameters}]}}"
    return f"id: a\nversion: 1\ninstruction: x\ncalibration: {calibration}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id: a\nversion: 1\n", "instruction"),
        ("id: A b\nversion: 1\ninstruction: x\n", "id"),
        ("id: a\nversion: 1\ninstruction: x\nthresholds: {block: 0.9, publish: 0.1}\n", "block"),
        ("id: a\nversion: 1\ninstruction: x\nsurprise: 1\n", "surprise"),
        ("{", "no YAML: .*line 1"),
        ("id: a\nversion: 1\ninstruction: x\ncalibration: {method: platt}\n", "parameters"),
        (platt(".nan, 0"), "finite"),
        (platt("1, -.inf"), "finite"),
        (platt("-1.5, 0"), "a must be above 0"),
        (platt("0, 1"), "a must be above 0"),
        ("id: a\nversion: 1\ninstruction: x\napplies_to: {category: []}\n", "category"),
        ("id: a\nversion: 2024-13-01\n", "month"),
        ("id: a\0", "special characters"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_by_name_in_one_line(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(PolicyError, match=f"^policy a.yaml: .*{said}") as refused:
        read_policy_files(tmp_path)
    assert "\n" not in refused.value.message
    assert "input_value" not in refused.value.message


def write(folder: Path, **policies: str) -> None:
    for name, applies_to in policies.items():
        text = f"id: {name}\nversion: 1\ninstruction: x\napplies_to: {{{applies_to}}}\n"
        (folder / f"{name}.yaml").write_text(text)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", "category: [shoes]"),
        ("", ""),
        ("category: [shoes, boots]", "category: [boots], seller: [x]"),
        ("locale: [ja]", "locale: [ja_JP, ja]"),
    ],
)
def test_a_policy_that_never_applies_is_refused(tmp_path: Path, first: str, second: str) -> None:
    write(tmp_path, between="category: [toys]", exact=first, shoes=second)
    with pytest.raises(PolicyError, match=r"policy shoes.yaml: never applies: exact.yaml"):
        read_policy_files(tmp_path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("category: [shoes]", ""),
        ("category: [shoes]", "category: [shoes, boots]"),
        ("category: [shoes], seller: [x]", "category: [shoes]"),
        ("locale: [ja-JP]", "locale: [ja]"),
        ("seller: [x]", "category: [x]"),
    ],
)
def test_a_policy_that_applies_to_anything_more_is_taken(
    tmp_path: Path, first: str, second: str
) -> None:
    write(tmp_path, exact=first, shoes=second)
    assert [file.id for _, file in read_policy_files(tmp_path)] == ["exact", "shoes"]


def test_either_ending_of_yaml_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path, a="seller: [a]", b="seller: [b]", c="")
    (tmp_path / "b.yaml").rename(tmp_path / "b.yml")
    assert [path.name for path, _ in read_policy_files(tmp_path)] == ["a.yaml", "b.yml", "c.yaml"]


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
    policies = await load_policies(read_policy_files(resource("policies")), PixelSpec(8), decode)
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
