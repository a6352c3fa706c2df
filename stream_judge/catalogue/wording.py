"""Policy instructions: which attributes count, in many words, English and Japanese."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from stream_judge.catalogue import wording_en, wording_ja
from stream_judge.catalogue.phrases import Frame, compiled_all, pick, shuffled
from stream_judge.catalogue.phrasings import phrasings
from stream_judge.catalogue.wording_grammar import compose_frame

#: "wild": frames of a kind and framing words that no other split has.
SPLITS = ("train", "dev", "test", "wild")
#: What "train" has, and further writers' phrasings: for the end of training.
LATE = "late"
_ALL = frozenset(range(4))
Chance = Callable[[], float]
#: The ways an instruction can go about its rule; see `Instruction.kind`.
KINDS = ("POSITIVE", "NEGATIVE", "BOTH", "ALL", "SAMPLES")
_NAMED = KINDS[:3]
# Two sides in one instruction are the hardest to read: training reads them twice as often.
_NAMED_IN_TRAINING = (*_NAMED, "BOTH")


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction, and how it was made.

    Attributes:
        text: The words.
        kind: What it names: "POSITIVE" what counts, "NEGATIVE" what does not, "BOTH",
            "ALL" that all counts, "SAMPLES" nothing.
        mentioned: Indices of the attributes that it names on either side.
    """

    text: str
    kind: str
    mentioned: frozenset[int]


class _Wording:
    """The frames of a language and split."""

    def __init__(self, language: str, split: str, simple: bool) -> None:
        frames: ModuleType = {"en": wording_en, "ja": wording_ja}[language]
        self.language = language
        self.split = split
        self.simple = simple
        self.english = language == "en"
        self.names: tuple[tuple[str, ...], ...] = frames.NAMES
        self.training = split in ("train", LATE)
        own = "train" if self.training else split
        # A plain instruction has none of the writers' phrasings.
        written = (
            [] if simple else [phrasings(language, name) for name in dict.fromkeys((own, split))]
        )
        self.frames: dict[str, tuple[Frame, ...]] = {}
        for kind in (*KINDS, "LEADS"):
            more = [line for found in written for line in found.get(kind, ())]
            self.frames[kind] = compiled_all((*getattr(frames, kind)[own], *more))

    def frame(self, kind: str, chance: Chance) -> Frame:
        """A frame of a kind; half of those for training are put together from clauses."""
        if self.training and kind != "SAMPLES" and chance() < 0.5:
            late = self.split == LATE
            return compose_frame(kind, self.language, chance, simple=self.simple, late=late)
        return pick(self.frames[kind], chance)


@cache
def _wording(language: str, split: str, simple: bool) -> _Wording:
    if language not in ("en", "ja") or split not in (*SPLITS, LATE):
        raise ValueError(f"no wording for language {language!r}, split {split!r}")
    return _Wording(language, split, simple)


def compose_instruction(
    counts: frozenset[int],
    language: str,
    rng: random.Random,
    *,
    split: str = "train",
    simple: bool = False,
) -> Instruction:
    """An instruction that says which attributes count, in one to three sentences.

    Args:
        counts: Indices of the attributes that count. None: the samples show the rule.
        language: "en" or "ja".
        rng: Source of all choices; the same state gives the same words.
        split: One of `SPLITS`, or `LATE`.
        simple: With few and plain phrasings, which a learner begins with.

    Raises:
        ValueError: If there is no such attribute, language or split.
    """
    if not counts <= _ALL:
        raise ValueError(f"no such set of attributes: {sorted(counts)}")
    chance = rng.random
    wording = _wording(language, split, simple)
    named = _NAMED_IN_TRAINING if wording.training else _NAMED
    kind = "ALL" if counts == _ALL else pick(named, chance) if counts else "SAMPLES"
    frame = wording.frame(kind, chance)
    sides = {slot[:2] for _, slot in frame if slot}
    mentioned = (counts if "in" in sides else frozenset()) | (
        _ALL - counts if "ou" in sides else frozenset()
    )
    rule = _filled(frame, counts, wording, chance) if counts else frame[0][0]
    return Instruction(_with_lead(rule, wording, chance), kind, mentioned)


def write_instruction(
    counts: frozenset[int], language: str, rng: random.Random, *, split: str = "train"
) -> str:
    """The words of `compose_instruction` for a rule that is named.

    Raises:
        ValueError: If nothing counts, or there is no such attribute, language or split.
    """
    if not counts:
        raise ValueError(
            "no attributes count: write_sample_instruction is for rules that are not named"
        )
    return compose_instruction(counts, language, rng, split=split).text


def write_sample_instruction(language: str, rng: random.Random, *, split: str = "train") -> str:
    """An instruction that names no rule: the samples show it.

    Args:
        language: "en" or "ja".
        rng: Source of all choices.
        split: One of `SPLITS`, or `LATE`.

    Raises:
        ValueError: If there is no such language or split.
    """
    return compose_instruction(frozenset(), language, rng, split=split).text


def _with_lead(rule: str, wording: _Wording, chance: Chance) -> str:
    """The rule, in six of ten cases behind a sentence that says what the task is."""
    if chance() < 0.4:
        return rule
    lead = "".join([literal for literal, _ in pick(wording.frames["LEADS"], chance)])
    joint = " " if wording.english else ""
    if chance() < 0.15:
        return rule + joint + lead if rule[-1] in ".。!" else rule
    if not wording.english and lead[-1] not in "。":
        lead += "。"
    return lead + joint + rule


def _filled(frame: Frame, counts: frozenset[int], wording: _Wording, chance: Chance) -> str:
    # One name for each attribute in one instruction, as a writer of policies would.
    names = [pick(options, chance) for options in wording.names]
    order = shuffled(range(4), chance) if chance() < 0.5 else list(range(4))
    inside = [names[a] for a in order if a in counts]
    outside = [names[a] for a in order if a not in counts]
    words: dict[str, str] = {}
    for slot, chosen in (("in", inside), ("out", outside)):
        words |= _slots(slot, chosen, wording.english, chance)
    text = "".join([literal + words.get(slot, "") for literal, slot in frame])
    return text[:1].upper() + text[1:]


def _slots(slot: str, chosen: list[str], english: bool, chance: Chance) -> dict[str, str]:
    """What the slots of one side say: lists, and the verb endings that go with them."""
    if not english:
        comma = "、".join(chosen)
        either = pick(("か", "または"), chance) if len(chosen) == 2 else "、"
        joint = pick(("と", "、", "および"), chance) if len(chosen) == 2 else "、"
        return {slot: comma, slot + "a": joint.join(chosen), slot + "o": either.join(chosen)}
    several = len(chosen) > 1
    the = " the " if chance() < 0.6 else " "
    return {
        slot: ", ".join(chosen),
        slot + "a": _listed(chosen, "and", the),
        slot + "o": _listed(chosen, "or", " "),
        slot + "s": "" if several else "s",
        slot + "es": "" if several else "es",
        slot + "is": "are" if several else "is",
    }


def _listed(names: list[str], word: str, the: str) -> str:
    if len(names) < 2:
        return "".join(names)
    return f",{the}".join(names[:-1]) + f" {word}{the}{names[-1]}"
