"""Policies: what counts as a match, for whom, and from which score on."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import eq
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_judge.errors import ConfigError, ImageError, NoPolicyError, PolicyError
from stream_judge.events import ProductUpdate
from stream_judge.images.loader import LoadedImage
from stream_judge.images.spec import PixelSpec
from stream_judge.serving.bundle import Sample, digest_of, pack_bundle
from stream_judge.triton import PolicyBundle
from stream_judge.yaml_file import read_yaml

Decision = Literal["publish", "review", "block"]
DecodeImage = Callable[[bytes], Awaitable[LoadedImage]]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AppliesTo(_Part):
    """Which products a policy is for; an absent list means any."""

    category: tuple[str, ...] | None = Field(None, min_length=1, description="Categories, exact.")
    locale: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Locales; a language alone (`ja`) fits all its locales.",
    )
    seller: tuple[str, ...] | None = Field(None, min_length=1, description="Sellers, exact.")

    def fits(self, update: ProductUpdate) -> bool:
        """Whether a product is one of these."""
        if self.category is not None and update.category not in self.category:
            return False
        if self.seller is not None and update.seller not in self.seller:
            return False
        return self.locale is None or any(_locale_fits(x, update.locale) for x in self.locale)

    def covers(self, other: AppliesTo) -> bool:
        """Whether these are all the products of another, and maybe more."""
        return (
            _covers(self.category, other.category, eq)
            and _covers(self.seller, other.seller, eq)
            and _covers(self.locale, other.locale, _locale_fits)
        )


def _covers(
    wide: tuple[str, ...] | None,
    narrow: tuple[str, ...] | None,
    fits: Callable[[str, str], bool],
) -> bool:
    if wide is None or narrow is None:
        return wide is None
    return all(any(fits(name, inner) for name in wide) for inner in narrow)


def _locale_fits(wanted: str, found: str | None) -> bool:
    if found is None:
        return False
    # Shops write en_GB and en-GB alike.
    wanted, found = wanted.replace("_", "-"), found.replace("_", "-")
    return found == wanted or found.split("-")[0] == wanted


class PolicySample(_Part):
    """One in-context sample."""

    image: str = Field(description="Picture file, relative to the policy file.")
    text: str = Field(min_length=1, description="The listing's text.")
    answer: Literal["relevant", "not_relevant"] = Field(description="The right answer.")
    reason: str = Field("", description="Why, for people; the model does not read it.")


class ImageRules(_Part):
    """Which pictures count."""

    max: int = Field(
        4, ge=1, le=50, description="Pictures that are judged at most; primary judges one."
    )
    aggregate: Literal["primary", "all", "any"] = Field(
        "primary",
        description="primary: the first picture's score; all: the lowest; any: the highest.",
    )


class TextRules(_Part):
    """Which text counts."""

    fields: tuple[str, ...] = Field(
        ("title", "bullets", "description", "specifications"),
        min_length=1,
        description="Text fields of the mapping, in the order they are read.",
    )
    max_tokens: int | None = Field(None, ge=1, description="Tokens of text that are read.")


class Thresholds(_Part):
    """From which calibrated score on; equal values make a plain two-way decision."""

    block: float = Field(0.5, ge=0, le=1, description="Below this score: block.")
    publish: float = Field(0.5, ge=0, le=1, description="From this score on: publish.")

    @model_validator(mode="after")
    def _ordered(self) -> Thresholds:
        if self.block > self.publish:
            raise ValueError("block must not be above publish")
        return self


class Calibration(_Part):
    """How a raw score becomes P(relevant)."""

    method: Literal["none", "platt"] = Field(
        "none", description="none: the raw score; platt: sigmoid(a * logit(raw) + b)."
    )
    parameters: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(
        (), description="platt: (a, b), both finite, a above 0."
    )
    fitted_on: str = Field("", description="The labels it was fitted on.")
    guarantee: str = Field("", description="What was shown for it.")

    @model_validator(mode="after")
    def _complete(self) -> Calibration:
        wanted = {"none": 0, "platt": 2}[self.method]
        if len(self.parameters) != wanted:
            raise ValueError(f"{self.method} takes {wanted} parameters")
        if self.method == "platt" and self.parameters[0] <= 0:
            # The better match would score lower, and `all` and `any` go by raw scores.
            raise ValueError("platt: a must be above 0, or scores do not grow with the match")
        return self


class PolicyFile(_Part):
    """A policy file (YAML)."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$", description="Name of the policy.")
    version: int = Field(ge=1, description="Raised with every change.")
    applies_to: AppliesTo = Field(default_factory=AppliesTo)
    instruction: str = Field(min_length=1, description="States what counts as a match.")
    samples: tuple[PolicySample, ...] = Field((), max_length=64)
    images: ImageRules = Field(default_factory=ImageRules)
    text: TextRules = Field(default_factory=TextRules)
    thresholds: Thresholds = Field(default_factory=Thresholds)
    calibration: Calibration = Field(default_factory=Calibration)
    on_unjudgeable: Decision = Field("review", description="Decision when nothing was judged.")
    rationale: Literal["never", "on_hold", "always"] = Field(
        "never",
        description="When to ask the model for its reasons; this version never does.",
    )

    @model_validator(mode="after")
    def _possible(self) -> PolicyFile:
        if self.rationale != "never":
            raise ValueError("rationale: this version writes none; never is the only choice")
        return self


def check_fields(policies: Sequence[PolicyFile], known: Collection[str]) -> None:
    """Hold the text fields of policies against those that the mapping reads.

    Args:
        policies: Those in force.
        known: The mapping's names of text fields.

    Raises:
        PolicyError: A policy names a field that no update will ever have, or has none at all.
    """
    for policy in policies:
        rules = policy.text
        unknown = [name for name in rules.fields if name not in known]
        # The default names what many mappings have; a mapping need not have all of it.
        chosen = "fields" in rules.model_fields_set
        if (unknown and chosen) or len(unknown) == len(rules.fields):
            raise PolicyError(
                f"policy {policy.id}: text.fields names {', '.join(unknown)}; "
                f"the mapping's text has {', '.join(known) or 'nothing'}"
            )


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that is ready to judge with.

    Attributes:
        file: What the operator wrote.
        digest: sha256 over everything that changes a verdict, samples' pictures included.
        bundle: What the model server is told.
    """

    file: PolicyFile
    digest: str
    bundle: PolicyBundle

    @property
    def id(self) -> str:
        """The policy's name."""
        return self.file.id


class PolicySet:
    """The policies in use, in the order of their files' names.

    Args:
        policies: At least one.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)

    def choose(self, update: ProductUpdate) -> Policy:
        """The first policy that applies to a product.

        Raises:
            NoPolicyError: None does.
        """
        for policy in self.policies:
            if policy.file.applies_to.fits(update):
                return policy
        raise NoPolicyError(
            f"no policy applies to product {update.product_id} (category {update.category!r}, "
            f"locale {update.locale!r}, seller {update.seller!r}); add one without applies_to"
        )


def read_policy_files(folder: Path) -> list[tuple[Path, PolicyFile]]:
    """All policies of a folder, `*.yaml` and `*.yml`, sorted by file name.

    Raises:
        PolicyError: No folder, no policy, a file that is none, an id used twice, or a policy
            that never applies.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".yaml", ".yml"))
    if not paths:
        raise PolicyError(f"{folder}: no policies (*.yaml, *.yml) there")
    found = []
    for path in paths:
        try:
            found.append((path, read_yaml(path, PolicyFile)))
        except ConfigError as exc:
            raise PolicyError(f"policy {path.name}: {exc.message}") from exc
    ids = [file.id for _, file in found]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise PolicyError(f"{folder}: policy id {', '.join(twice)} is used twice")
    for (first, wide), (second, narrow) in combinations(found, 2):
        if wide.applies_to.covers(narrow.applies_to):
            raise PolicyError(
                f"policy {second.name}: never applies: {first.name} comes before it by file name "
                "and applies to all its products; rename one of them, or narrow applies_to"
            )
    return found


def check_pictures(files: Sequence[tuple[Path, PolicyFile]]) -> None:
    """See that the samples' pictures are there; whether they are pictures takes a model to say.

    Args:
        files: As `read_policy_files` gives them.

    Raises:
        PolicyError: One is not.
    """
    for path, file in files:
        for sample in file.samples:
            if not (path.parent / sample.image).is_file():
                raise PolicyError(f"policy {path.name}: picture {sample.image} is not there")


async def load_policies(
    files: Sequence[tuple[Path, PolicyFile]], spec: PixelSpec, decode: DecodeImage
) -> PolicySet:
    """Policies with their samples' pictures prepared for a model.

    Args:
        files: As `read_policy_files` gives them; samples' pictures lie relative to them.
        spec: What the model wants of pictures.
        decode: Decodes a picture's bytes, as `ImageLoader.decode` does.

    Raises:
        PolicyError: A sample's picture that cannot be read.
    """
    policies = []
    for path, file in files:
        samples, digests = [], []
        for sample in file.samples:
            try:
                loaded = await decode((path.parent / sample.image).read_bytes())
            except (OSError, ImageError) as exc:
                raise PolicyError(f"policy {path.name}: picture {sample.image}: {exc}") from exc
            samples.append(Sample(loaded.pixels, sample.text, sample.answer == "relevant"))
            digests.append(loaded.sha256)
        data = pack_bundle(
            file.instruction, samples, size=spec.size, max_text_tokens=file.text.max_tokens
        )
        bundle = PolicyBundle(digest_of(data), data)
        policies.append(Policy(file, _digest(file, digests), bundle))
    return PolicySet(policies)


def _digest(file: PolicyFile, pictures: Sequence[str]) -> str:
    content = file.model_dump(mode="json", exclude={"applies_to"})
    for sample, digest in zip(content["samples"], pictures, strict=True):
        # The picture counts, not where it lies; the reason is for people.
        sample["image"] = digest
        sample.pop("reason")
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
