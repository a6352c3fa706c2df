"""What changes with the step while the decoder trains: rates, batches, weights of losses.

All of it depends on the step alone, so a resumed run goes on as an uninterrupted one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stream_judge.training.episodes import EpisodeKind

PEAK_RATE = 1.2e-3
MUON_RATE = 0.02
_WARM_UP = 100
# Muon's update has one size, however small and noisy the gradient is. At .02 policies are
# read within 300 steps, but sets of differences are found at .60 after 1,050 steps and at .69
# after 1,700. With the rate falling to .006 behind step 300 and on to nothing: .66 after
# 1,050, .88 after 1,550, .95 in the end.
_MUON_LATER = 0.3
_MUON_FALLS_STEPS = 150

# Share of episodes of the ending whose last text has odd lines.
_ODD = 0.1
# Rates of the ending begin here, as shares of the peaks.
_AGAIN, _AGAIN_WARM_UP = 0.3, 25

# (weight, kind, episodes in a batch). The number of episodes keeps the tokens of a batch
# near 4,000 whatever its form; a stage that came last without the earlier kinds would
# forget them, so all kinds stay in the mix to the end.
Mix = tuple[tuple[float, EpisodeKind, int], ...]
OPENING: Mix = (
    (0.35, EpisodeKind("title", 3, sparse=True), 36),
    (0.30, EpisodeKind("title", 5, sparse=True), 23),
    (0.35, EpisodeKind("title", 9, sparse=True), 12),
)
WHOLE: Mix = (
    (0.06, EpisodeKind("title", 3), 29),
    (0.10, EpisodeKind("title", 5), 18),
    (0.26, EpisodeKind("title", 9), 10),
    (0.07, EpisodeKind("bullets", 1, named=0.9), 34),
    (0.06, EpisodeKind("bullets", 3), 12),
    (0.11, EpisodeKind("paragraphs", 1, named=0.9), 24),
    (0.12, EpisodeKind("long", 1, named=0.95), 9),
    (0.11, EpisodeKind("spec", 1, named=0.95), 17),
    (0.11, EpisodeKind("mixed", 4), 7),
)
# A quarter of the picture tokens says the same in shorter rows: more titles in a batch.
SHORT: Mix = tuple(
    (weight, replace(kind, sparse=True), episodes + episodes // 3 * (kind.form == "title"))
    for weight, kind, episodes in WHOLE
)
# In the end: further writers, listings of every form behind samples that are titles, and odd
# lines. With the first two from the start on, values of mentions were told at .93 after 2,800
# steps instead of at .98.
ENDING: Mix = tuple(
    (weight, replace(kind, odd=_ODD, late=True), episodes)
    for weight, kind, episodes in (
        (0.03, EpisodeKind("title", 1, named=0.95), 60),
        (0.03, EpisodeKind("title", 3), 29),
        (0.05, EpisodeKind("title", 5), 18),
        (0.17, EpisodeKind("title", 9), 10),
        (0.05, EpisodeKind("bullets", 1, named=0.9), 34),
        (0.02, EpisodeKind("bullets", 3), 12),
        (0.08, EpisodeKind("paragraphs", 1, named=0.9), 24),
        (0.12, EpisodeKind("long", 1, named=0.95), 9),
        (0.10, EpisodeKind("spec", 1, named=0.95), 17),
        (0.05, EpisodeKind("bullets", 5, titles=True, named=0.4), 15),
        (0.07, EpisodeKind("paragraphs", 5, titles=True, named=0.4), 13),
        (0.12, EpisodeKind("long", 5, titles=True, named=0.4), 7),
        (0.08, EpisodeKind("spec", 5, titles=True, named=0.4), 12),
        (0.03, EpisodeKind("mixed", 4), 7),
    )
)

# Instructions alone, with every batch: an episode has only one, and what it says has to be
# read before anything can be judged by it.
READING = EpisodeKind("title", 0, named=0.92)
READING_ROWS = 128
# What a loss weighs is its share of Muon's step. Reading comes first and gives way to
# comparing: weighed five times, policies are read at .95 after 300 steps, but differing sets
# are found at .54, where they were at .85 with all losses weighed alike.
_READING_FIRST, _READING_LATER = 5.0, 2.0
# Steps behind the opening until only `_PLAIN_SHARE` of the instructions are plain.
_TO_PLAIN_STEPS = 900
_PLAIN_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the decoder trains, step by step.

    Attributes:
        steps: Batches in all.
        opening: The first ones are titles with few picture tokens and plain instructions.
        ending: The last ones have rates of their own, and what `ENDING` says. Shares are of
            the batches before.
        short: Up to this share of the batches every picture has few tokens.
        words: Up to this share of the batches the policy is asked at every word of an
            instruction. Most words cannot know it: in the end they only disturb.
        keep_every: Batches between two saved states.
        measure_every: Batches between two measurements on the development split.
    """

    steps: int
    opening: int
    ending: int = 0
    short: float = 0.5
    words: float = 0.5
    keep_every: int = 250
    measure_every: int = 600

    @property
    def main(self) -> int:
        """Batches before the ending."""
        return self.steps - self.ending

    def rate(self, step: int) -> float:
        """Share of the peak rates: a warm-up, full in the opening, then straight to nothing.

        The ending rises again, less, and falls to nothing once more.
        """
        if self.late(step):
            rise = min(1.0, (step - self.main + 1) / _AGAIN_WARM_UP)
            return _AGAIN * rise * (self.steps - step) / self.ending
        rise = min(1.0, (step + 1) / _WARM_UP)
        left = (self.main - step) / max(1, self.main - self.opening)
        return rise * min(1.0, max(0.0, left))

    def muon_rate(self, step: int) -> float:
        """Share of Muon's peak rate, which falls more at the end of the opening."""
        fallen = min(1.0, max(0.0, (step - self.opening) / _MUON_FALLS_STEPS))
        return self.rate(step) * (1.0 - fallen * (1.0 - _MUON_LATER))

    def mix(self, step: int) -> Mix:
        """What the judged batch of this step is drawn from."""
        if step < self.opening:
            return OPENING
        if self.late(step):
            return ENDING
        return SHORT if step < self.short * self.main else WHOLE

    def late(self, step: int) -> bool:
        """Do further writers' instructions come too."""
        return bool(self.ending) and step >= self.main

    def simple(self, step: int) -> float:
        """Share of plain instructions. With every phrasing at once nothing of them is learnt."""
        past = step - self.opening
        return min(1.0, max(_PLAIN_SHARE, 1.0 - past / _TO_PLAIN_STEPS))

    def reading_weight(self, step: int) -> float:
        """What the loss of instructions alone weighs."""
        return _READING_FIRST if step < self.opening else _READING_LATER

    def asks_words(self, step: int) -> bool:
        """Is the policy asked at every word of the instructions that are read alone."""
        return step < self.words * self.main

    def asks_words_judging(self, step: int) -> bool:
        """Is it asked at every word in judged batches too."""
        return step < self.opening
