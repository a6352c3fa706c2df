"""A drawn shop: pictures, product updates as it would publish them, and the truth."""

from __future__ import annotations

import base64
import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from stream_judge.catalogue.attributes import ATTRIBUTES, SIZES, Product
from stream_judge.catalogue.drawing import draw, encode
from stream_judge.catalogue.rules import COUNTS, SELLER_POLICY
from stream_judge.catalogue.texts import Listing, write_listing

#: Stands in event files for wherever the pictures are served.
PLACEHOLDER = "http://catalogue.invalid"
FORMS = ("title", "bullets", "paragraphs", "long", "spec")
_SELLERS = {
    "en": ("north-shop", "any-colour-outlet", "sample-studio"),
    "ja": ("kita-shop", "any-colour-outlet", "sample-studio"),
}
_DEPARTMENTS = (
    "kitchen", "kitchen", "clothing", "clothing", "accessories", "shoes",
    "accessories", "lighting", "furniture", "accessories", "sports", "home",
)  # fmt: skip
_PICTURE_FAULTS = ("missing", "truncated", "no_picture", "too_large")
_RECORD_FAULTS = ("not_json", "bad_utf8", "no_id")
# Of every hundred lines: these many of each.
_WITH_PICTURE_FAULT, _MALFORMED, _TOMBSTONES = 4, 3, 1
#: A picture over this is "too large" for whoever limits pictures to it (the demo does).
TOO_LARGE_BYTES = 3_000_000


@dataclass(frozen=True, slots=True)
class CatalogueReport:
    """What was written.

    Attributes:
        out: The folder: `pictures/`, `events.jsonl`, `truth.jsonl`.
        events: Lines in each file.
        pictures: Files in `pictures/`.
    """

    out: Path
    events: int
    pictures: int


@dataclass(frozen=True, slots=True)
class _Plan:
    line: int
    seed: int
    expect: str
    fault: str | None
    form: str
    language: str
    seller: str
    differs: int | None

    @property
    def product_id(self) -> str:
        return f"p-{self.line:06d}"


def make_catalogue(count: int, seed: int, out: Path, *, processes: int = 2) -> CatalogueReport:
    """Write a drawn shop to `out`; the same count and seed give the same bytes.

    Half of the listings match their pictures, half differ in exactly one attribute. A few
    pictures are missing or broken, a few events malformed, a few are tombstones. Pictures of
    a shop that was drawn to `out` before are taken away.

    Args:
        count: Lines of `events.jsonl`.
        seed: Seed of everything.
        out: Folder to write to.
        processes: Drawing processes; they change nothing but the time.
    """
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for old in (out / "pictures").glob("p-[0-9]*-0.*"):
        # Under another seed it may be the one that is missing.
        old.unlink()
    plans = _plan(count, seed)
    folder = str(out / "pictures")
    if processes > 1:
        # Spawned: the caller may hold threads that do not survive a fork.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            lines = list(pool.map(_make, plans, [folder] * count, chunksize=8))
    else:
        lines = [_make(plan, folder) for plan in plans]
    for name, index in (("events", 0), ("truth", 1)):
        text = "".join(json.dumps(line[index], ensure_ascii=False) + "\n" for line in lines)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    pictures = sum(1 for _ in (out / "pictures").iterdir())
    return CatalogueReport(out, count, pictures)


def _plan(count: int, seed: int) -> list[_Plan]:
    rng = random.Random(f"catalogue/{seed}")
    kinds = _kinds(count, rng)
    # Forms, languages, sellers and differences each go round, so that all are as even as
    # the count allows; the shuffle breaks their lockstep.
    cells = [(form, language) for form in FORMS for language in _SELLERS]
    rounds = [cells[i % len(cells)] for i in range(count)]
    differences = [None if i % 2 == 0 else i // 2 % 4 for i in range(count)]
    sellers = list(range(count))
    for values in (rounds, differences, sellers):
        rng.shuffle(values)  # type: ignore[arg-type]  # lists of several types
    plans = []
    for line, (expect, fault) in enumerate(kinds):
        form, language = rounds[line]
        # Half of the shop is under the plain policy, a quarter under each of the others.
        seller = _SELLERS[language][(0, 0, 1, 2)[sellers[line] % 4]]
        plans.append(
            _Plan(
                line,
                rng.randrange(2**62),
                expect,
                fault,
                form,
                language,
                seller,
                differences[line],
            )
        )
    return plans


def _kinds(count: int, rng: random.Random) -> list[tuple[str, str | None]]:
    broken, bad, gone = (
        round(count * share / 100) for share in (_WITH_PICTURE_FAULT, _MALFORMED, _TOMBSTONES)
    )
    kinds: list[tuple[str, str | None]] = [
        *(("unjudgeable", _PICTURE_FAULTS[i % 4]) for i in range(broken)),
        *(("dead_letter", _RECORD_FAULTS[i % 3]) for i in range(bad)),
        *(("tombstone", None) for _ in range(gone)),
    ]
    kinds += [("judged", None)] * (count - len(kinds))
    rng.shuffle(kinds)
    return kinds


def _make(plan: _Plan, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The line of `events.jsonl` and the line of `truth.jsonl`; writes the picture."""
    rng = random.Random(plan.seed)
    shown = Product(*(rng.randrange(size) for size in SIZES))
    told = shown
    if plan.differs is not None:
        size = SIZES[plan.differs]
        index = (shown.indices()[plan.differs] + rng.randrange(1, size)) % size
        told = shown.replaced(ATTRIBUTES[plan.differs], index)
    listing = write_listing(told, plan.form, plan.language, rng, split="test")
    name = f"{plan.product_id}-0.{_write_picture(plan, shown, rng, Path(folder))}"
    event = _event(plan, told, listing, name, rng)
    return _line(plan, event), _truth(plan, shown, told)


def _event(
    plan: _Plan, told: Product, listing: Listing, picture: str, rng: random.Random
) -> dict[str, Any]:
    event: dict[str, Any] = {
        "id": plan.product_id,
        "revision": 1 + rng.randrange(9),
        "seller": plan.seller,
        "locale": {"en": "en-GB", "ja": "ja-JP"}[plan.language],
        "category": _DEPARTMENTS[told.category],
        "title": listing.title,
    }
    if listing.bullets:
        event["bullets"] = list(listing.bullets)
    if listing.description:
        event["description"] = listing.description
    if listing.specifications:
        event["specifications"] = dict(listing.specifications)
    event["images"] = [{"url": f"{PLACEHOLDER}/pictures/{picture}"}]
    return event


def _line(plan: _Plan, event: dict[str, Any]) -> dict[str, Any]:
    key = plan.product_id
    if plan.expect == "tombstone":
        return {"key": key, "value": None}
    if plan.expect != "dead_letter":
        return {"key": key, "value": event}
    text = json.dumps(event, ensure_ascii=False)
    if plan.fault == "not_json":
        raw = text[: len(text) // 2].encode()
    elif plan.fault == "bad_utf8":
        raw = text.encode().replace(b'"title": "', b'"title": "\xff\xfe', 1)
    else:
        raw = json.dumps({k: v for k, v in event.items() if k != "id"}).encode()
    return {"key": key, "value_base64": base64.b64encode(raw).decode()}


def _truth(plan: _Plan, shown: Product, told: Product) -> dict[str, Any]:
    policy = SELLER_POLICY[plan.seller]
    differs = None if plan.differs is None else ATTRIBUTES[plan.differs]
    judged = plan.expect == "judged"
    return {
        "line": plan.line,
        "product_id": plan.product_id,
        "seller": plan.seller,
        "policy": policy,
        "form": plan.form,
        "language": plan.language,
        "shown": shown.names(),
        "told": told.names(),
        "differs": differs,
        "relevant": differs not in COUNTS[policy] if judged else None,
        "expect": plan.expect,
        "fault": plan.fault,
    }


def _write_picture(plan: _Plan, shown: Product, rng: random.Random, folder: Path) -> str:
    """Write the picture, or what a broken shop serves; returns the file's ending."""
    numbers = np.random.default_rng(plan.seed)
    width, height = (int(numbers.integers(500, 1201)) for _ in range(2))
    # Shops' pictures are nearly square; the model sees the middle square.
    height = min(max(height, int(width * 0.75)), int(width * 1.33))
    kind = rng.choices(("JPEG", "PNG", "WEBP"), weights=(8, 1, 1))[0]
    ending = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[kind]
    if plan.fault == "missing" or plan.expect == "tombstone":
        return ending
    data = encode(draw(shown, numbers, width=width, height=height), kind, numbers)  # type: ignore[arg-type]  # a Literal
    if plan.fault == "truncated":
        data = data[: len(data) // 3]
    elif plan.fault == "no_picture":
        data = b"<html><body>The picture you want has moved.</body></html>"
    elif plan.fault == "too_large":
        data += bytes(TOO_LARGE_BYTES)
    (folder / f"{plan.product_id}-0.{ending}").write_bytes(data)
    return ending
