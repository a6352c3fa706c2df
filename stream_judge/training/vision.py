"""Stage 1: vision tower, projector and word anchors together, in the manner of CLIP.

The picture's projected token i must be nearest (cosine) to the anchor of the value that
attribute i % 4 has. The decoder's word embeddings then start at the anchors of the values
they name, so that its picture tokens already live among its words.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stream_judge.catalogue.attributes import ATTRIBUTES, SIZES
from stream_judge.training.muon import Muon
from stream_judge.training.network import NetworkConfig, VisionTower, make_projector

Log = Callable[[str], None]
_LEARNING_RATE = 1.5e-3
_MUON_RATE = 0.02
_BATCH = 128


class AlignedVision(nn.Module):
    """The tower, the projector and one anchor vector per attribute value."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.tower = VisionTower(config)
        self.projector = make_projector(config)
        self.anchors = nn.ParameterList(
            nn.Parameter(torch.randn(size, config.width) * config.width**-0.5) for size in SIZES
        )
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logits per attribute, [B, T / 4, values], and the projected tokens [B, T, width]."""
        projected = self.projector(self.tower(pixels))
        logits = [
            self.log_scale.exp()
            * F.normalize(projected[:, a::4], dim=-1)
            @ F.normalize(self.anchors[a], dim=-1).T
            for a in range(4)
        ]
        return logits, projected


@dataclass(frozen=True, slots=True)
class Bank:
    """Drawings at model resolution.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        attributes: int8 [N, 4].
    """

    pixels: NDArray[np.uint8]
    attributes: NDArray[np.int8]


@torch.no_grad()
def accuracy(model: AlignedVision, bank: Bank) -> dict[str, float]:
    """Share of single picture tokens that name their attribute's value, by attribute."""
    model.eval()
    right = np.zeros(4)
    for start in range(0, len(bank.pixels), 500):
        pixels = torch.from_numpy(bank.pixels[start : start + 500])
        wanted = torch.from_numpy(bank.attributes[start : start + 500]).long()
        logits, _ = model(pixels)
        for a in range(4):
            right[a] += float((logits[a].argmax(-1) == wanted[:, a : a + 1]).float().mean(1).sum())
    model.train()
    scores = (right / len(bank.pixels)).tolist()
    return {name: round(score, 4) for name, score in zip(ATTRIBUTES, scores, strict=True)}


def train_vision(
    config: NetworkConfig, train: Bank, dev: Bank, *, steps: int, seed: int, log: Log
) -> AlignedVision:
    """The trained tower, projector and anchors; a pure function of its arguments."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    model = AlignedVision(config)
    parameters = list(model.parameters())
    matrices = [p for p in model.tower.blocks.parameters() if p.dim() == 2]
    known = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in known]
    optimisers = (
        (torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.05), _LEARNING_RATE),
        (Muon(matrices, _MUON_RATE), _MUON_RATE),
    )
    started = time.monotonic()
    for step in range(steps):
        part = min(1.0, (step + 1) / 100) * (1 - 0.97 * step / steps)
        for optimiser, peak in optimisers:
            optimiser.param_groups[0]["lr"] = part * peak
        chosen = np.sort(rng.integers(len(train.pixels), size=_BATCH))
        pixels = torch.from_numpy(train.pixels[chosen])
        if rng.random() < 0.5:
            pixels = pixels.flip(2)
        wanted = torch.from_numpy(train.attributes[chosen]).long()
        logits, projected = model(pixels)
        # Unit length keeps the tokens at the scale of the word embeddings.
        loss = 0.1 * (projected.norm(dim=-1) - 1).pow(2).mean()
        for a in range(4):
            flat = logits[a].flatten(0, 1)
            target = wanted[:, a].repeat_interleave(logits[a].shape[1])
            loss = loss + F.cross_entropy(flat, target, label_smoothing=0.02)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser, _ in optimisers:
            optimiser.step()
        if (step + 1) % 200 == 0 or step + 1 == steps:
            entry = {
                "stage": "vision",
                "step": step + 1,
                "seconds": round(time.monotonic() - started),
                "loss": round(float(loss.detach()), 3),
                "dev": accuracy(model, dev),
            }
            log(json.dumps(entry))
    return model


@torch.no_grad()
def tower_features(model: AlignedVision, pixels: NDArray[np.uint8]) -> Tensor:
    """The tower's outputs, float16 [N, T, vision_width]; the decoder stage never runs it."""
    model.eval()
    parts = [
        model.tower(torch.from_numpy(pixels[start : start + 500])).half()
        for start in range(0, len(pixels), 500)
    ]
    return torch.cat(parts)
