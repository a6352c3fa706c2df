"""Stage 2: the decoder learns to judge, on every kind of episode at once."""

from __future__ import annotations

import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from stream_judge.catalogue.attributes import SIZES, Product
from stream_judge.catalogue.texts import write_listing
from stream_judge.training.episodes import Batch, EpisodeKind, EpisodeWriter
from stream_judge.training.muon import Muon
from stream_judge.training.network import NetworkConfig
from stream_judge.training.probes import (
    JudgeNetwork,
    answer_logits,
    compute_loss,
    compute_reading_loss,
)
from stream_judge.training.schedule import (
    MUON_RATE,
    PEAK_RATE,
    READING,
    READING_ROWS,
    Schedule,
)
from stream_judge.training.vision import AlignedVision

Log = Callable[[str], None]
Loss = Callable[[JudgeNetwork, Batch, Tensor], tuple[Tensor, dict[str, float]]]
_TABLE_SEED = 4
_EVERY = 50


@dataclass(frozen=True, slots=True)
class Material:
    """What the decoder stage reads: tower features and the attributes they show.

    Attributes:
        features: float16 [N, T, vision_width].
        attributes: int8 [N, 4].
    """

    features: Tensor
    attributes: np.ndarray


def start_from_anchors(network: JudgeNetwork, vision: AlignedVision, tokenizer: Tokenizer) -> int:
    """Give the words that name one attribute value alone that value's anchor.

    Returns:
        How many tokens were set.
    """
    network.projector.load_state_dict(vision.projector.state_dict())
    owners: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for token, attribute, value in _named_tokens(tokenizer):
        owners[token].add((attribute, value))
    table = network.decoder.embeddings.weight
    alone = {token: next(iter(values)) for token, values in owners.items() if len(values) == 1}
    with torch.no_grad():
        for token, (attribute, value) in sorted(alone.items()):
            table[token] = vision.anchors[attribute][value] + 0.3 * table[token]
    return len(alone)


def _named_tokens(tokenizer: Tokenizer) -> Iterable[tuple[int, int, int]]:
    rng = random.Random(_TABLE_SEED)
    for number in range(4000):
        product = Product(*(rng.randrange(size) for size in SIZES))
        listing = write_listing(product, "title", ("en", "ja")[number % 2], rng)
        encoding = tokenizer.encode(" " + listing.text, add_special_tokens=False)
        begins = [begin for begin, _ in encoding.offsets]
        for attribute, _, end in listing.spans:
            last = int(np.searchsorted(begins, end + 1, side="left")) - 1
            yield encoding.ids[last], attribute, product.indices()[attribute]


class Trainer:
    """Trains the decoder; every batch and rate depends on seed and step alone.

    Args:
        network: The network, changed in place.
        tokenizer: The model's tokenizer.
        train: Material of the training bank.
        dev: Material of the development bank.
        schedule: Length of the run.
        seed: Seed of all episodes.
        state_path: Where the state for resuming is kept.
        log: Receives one JSON line per entry.
    """

    def __init__(
        self,
        network: JudgeNetwork,
        tokenizer: Tokenizer,
        train: Material,
        dev: Material,
        *,
        schedule: Schedule,
        seed: int,
        state_path: Path,
        log: Log,
    ) -> None:
        self._network = network
        self._train = train
        self._dev = dev
        self._schedule = schedule
        self._seed = seed
        self._state_path = state_path
        self._log = log
        tokens = train.features.shape[1]
        self._writer = EpisodeWriter(tokenizer, train.attributes, tokens, "train")
        self._dev_writer = EpisodeWriter(tokenizer, dev.attributes, tokens, "dev")
        self._optimisers = _make_optimisers(network)
        self._step = 0
        self._seconds = 0.0

    def resume(self) -> bool:
        """Load the last kept state; False when there is none."""
        if not self._state_path.exists():
            return False
        state = torch.load(self._state_path, weights_only=True)
        self._network.load_state_dict(state["network"])
        for optimiser, kept in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self._step = int(state["step"])
        self._seconds = float(state["seconds"])
        return True

    def run(self) -> None:
        """Train to the end of the schedule."""
        for block in self._network.decoder.blocks:
            block.compile(dynamic=True)
        scores: dict[str, list[float]] = defaultdict(list)
        started = time.monotonic() - self._seconds
        while self._step < self._schedule.steps:
            for name, value in self._train_step().items():
                scores[name].append(value)
            self._step += 1
            self._seconds = time.monotonic() - started
            done = self._step == self._schedule.steps
            if self._step % _EVERY == 0 or done:
                self._report(scores)
                scores.clear()
            if self._step % self._schedule.keep_every == 0 or done:
                self._keep()
            if self._step % self._schedule.measure_every == 0 or done:
                self._log(json.dumps({"stage": "dev", "step": self._step, **self.measure()}))

    def measure(self, *, episodes: int = 160) -> dict[str, float]:
        """Accuracy on development drawings, texts and phrasings, by kind of episode."""
        results: dict[str, float] = {}
        for form in ("title", "bullets", "paragraphs", "long", "spec"):
            kind = EpisodeKind(form, 1, same=0.5).only(named=True)
            results[form] = round(float(self._hits(kind, episodes).mean()), 3)
        hidden = EpisodeKind("title", 9).only(named=False)
        results.update(self._by_samples(hidden, episodes))
        named = self._hits(EpisodeKind("title", 9).only(named=True), episodes)
        results["named8"] = round(float(named[:, 8].mean()), 3)
        results["policy"] = round(self._reads(), 3)
        return results

    @torch.no_grad()
    def _reads(self) -> float:
        batch = self._dev_writer.write(READING, 600, (7, 0))
        self._network.eval()
        _, scores = compute_reading_loss(self._network, batch, self._dev.features)
        self._network.train()
        return scores["policy_late"]

    def _by_samples(self, kind: EpisodeKind, episodes: int) -> dict[str, float]:
        batch = self._dev_writer.write(kind, episodes, (7, 9))
        hits = self._verdicts(batch) == batch.answers
        covered = (batch.seen() > 0) & (batch.masks > 0)
        ideal = batch.ideal()
        best = np.where(np.abs(ideal - 0.5) < 1e-9, 0.5, (ideal > 0.5) == batch.answers)
        results = {"covered": round(float(hits[covered].mean()), 3)}
        for k in (0, 1, 2, 4, 8):
            results[f"hidden{k}"] = round(float(hits[:, k].mean()), 3)
            results[f"ideal{k}"] = round(float(best[:, k].mean()), 3)
        return results

    def _hits(self, kind: EpisodeKind, episodes: int) -> np.ndarray:
        batch = self._dev_writer.write(kind, episodes, (7, kind.pairs))
        return self._verdicts(batch) == batch.answers

    @torch.no_grad()
    def _verdicts(self, batch: Batch) -> np.ndarray:
        self._network.eval()
        hidden, _ = self._network(batch, self._dev.features)
        logits = answer_logits(self._network, batch, hidden)
        self._network.train()
        yes, no = self._dev_writer.answer_ids
        verdicts: np.ndarray = (logits[..., yes] > logits[..., no]).numpy()
        return verdicts

    def _train_step(self) -> dict[str, float]:
        adam, muon = self._optimisers
        rates = self._schedule.rate(self._step), self._schedule.muon_rate(self._step)
        for optimiser, rate in zip((adam, muon), rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * group["peak"]
            optimiser.zero_grad()
        scores = {**self._judge(), **self._read()}
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        for optimiser in self._optimisers:
            optimiser.step()
        return scores

    def _read(self) -> dict[str, float]:
        schedule, step = self._schedule, self._step
        kind = replace(READING, simple=schedule.simple(step), late=schedule.late(step))
        batch = self._writer.write(kind, READING_ROWS, (self._seed, step, 3))
        loss = partial(compute_reading_loss, words=schedule.asks_words(step))
        scores = self._learn(batch, loss, schedule.reading_weight(step))
        return {name: score for name, score in scores.items() if name != "loss"}

    def _judge(self) -> dict[str, float]:
        schedule, step = self._schedule, self._step
        mix = schedule.mix(step)
        choose = np.random.default_rng([self._seed, step, 1])
        weights = np.array([weight for weight, _, _ in mix])
        _, kind, episodes = mix[int(choose.choice(len(mix), p=weights / weights.sum()))]
        kind = replace(kind, simple=schedule.simple(step))
        batch = self._writer.write(kind, episodes, (self._seed, step, 2))
        answers, words = self._writer.answer_ids, schedule.asks_words_judging(step)
        scores = self._learn(batch, partial(compute_loss, answer_ids=answers, words=words))
        return {**scores, kind.form: scores["named"]}

    def _learn(self, batch: Batch, compute: Loss, weight: float = 1.0) -> dict[str, float]:
        """Add a batch's gradients; its scores, the loss among them."""
        scores: dict[str, list[float]] = defaultdict(list)
        for rows in batch.by_length():
            loss, found = compute(self._network, rows, self._train.features)
            loss = loss * len(rows.rule) / len(batch.rule)
            (weight * loss).backward()
            found["loss"] = float(loss.detach())
            for name, score in found.items():
                scores[name].append(score)
        total = sum(scores.pop("loss"))
        return {"loss": total, **{name: _mean(found) for name, found in scores.items()}}

    def _report(self, scores: dict[str, list[float]]) -> None:
        means = {}
        for name, values in scores.items():
            if not math.isnan(mean := _mean(values)):
                means[name] = round(mean, 3)
        entry = {"stage": "judge", "step": self._step, "seconds": round(self._seconds), **means}
        self._log(json.dumps(entry))

    def _keep(self) -> None:
        state = {
            "network": self._network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "step": self._step,
            "seconds": self._seconds,
        }
        unfinished = self._state_path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self._state_path)


def _mean(values: Sequence[float]) -> float:
    """The mean of what was asked; nan if nothing was."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _make_optimisers(network: JudgeNetwork) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the blocks' matrices, AdamW for the rest."""
    matrices = [p for p in network.decoder.blocks.parameters() if p.dim() == 2]
    # Aligned already in the vision stage: a third of the rate keeps the alignment. The words
    # of instructions are not aligned with anything, and there are thousands of them.
    projector = list(network.projector.parameters())
    known = {id(p) for p in (*matrices, *projector)}
    rest = [p for p in network.parameters() if id(p) not in known]
    words = network.decoder.embeddings.weight
    wide = [p for p in rest if p.dim() > 1 and p is not words]
    narrow = [p for p in rest if p.dim() < 2]
    groups = [
        {"params": projector, "peak": 0.33 * PEAK_RATE, "weight_decay": 0.0},
        {"params": [words], "peak": PEAK_RATE, "weight_decay": 0.0},
        {"params": wide, "peak": PEAK_RATE, "weight_decay": 0.05},
        {"params": narrow, "peak": PEAK_RATE, "weight_decay": 0.0},
    ]
    muon = Muon(matrices, MUON_RATE)
    muon.param_groups[0]["peak"] = MUON_RATE
    return torch.optim.AdamW(groups, PEAK_RATE, betas=(0.9, 0.98)), muon


def make_network(config: NetworkConfig, seed: int) -> JudgeNetwork:
    """A network with reproducible first weights."""
    torch.manual_seed(seed)
    return JudgeNetwork(config)
