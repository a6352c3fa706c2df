from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from stream_judge.training.checkpoint import to_llava
from stream_judge.training.episodes import ANSWER, EpisodeKind, EpisodeWriter
from stream_judge.training.network import NetworkConfig
from stream_judge.training.probes import answer_logits, compute_loss
from stream_judge.training.trainer import make_network, start_from_anchors
from stream_judge.training.vision import AlignedVision, Bank, tower_features


def test_the_twin_and_transformers_give_the_same_logits(
    small: NetworkConfig, tokenizer: Tokenizer, bank: Bank
) -> None:
    torch.manual_seed(3)
    vision = AlignedVision(small)
    network = make_network(small, seed=3)
    start_from_anchors(network, vision, tokenizer)
    batch = EpisodeWriter(tokenizer, bank.attributes, 16, "train").write(
        EpisodeKind("title", 3), 4, (8,)
    )
    features = tower_features(vision, bank.pixels)
    model = to_llava(small, vision.tower, network)
    with torch.no_grad():
        hidden, _ = network(batch, features)
        ours = answer_logits(network, batch, hidden)
        pixels = torch.from_numpy(bank.pixels[batch.pictures.ravel()]).permute(0, 3, 1, 2)
        lengths = (batch.positions.argmax(1) + 1)[:, None]
        mask = torch.from_numpy((np.arange(batch.ids.shape[1]) < lengths).astype(np.int64))
        theirs = model(
            input_ids=torch.from_numpy(batch.ids),
            pixel_values=(pixels.float() / 255 - small.pixel_mean) / small.pixel_std,
            attention_mask=mask,
        ).logits
    rows, columns = np.nonzero(batch.kinds == ANSWER)
    difference = (theirs[rows, columns] - ours.flatten(0, 1)).abs().max()
    # Features are cached as float16; the rest is float32 on both sides.
    assert float(difference) < 5e-3


def test_a_step_lowers_the_loss_on_its_own_batch(
    small: NetworkConfig, tokenizer: Tokenizer, bank: Bank
) -> None:
    network = make_network(small, seed=0)
    vision = AlignedVision(small)
    features = tower_features(vision, bank.pixels)
    writer = EpisodeWriter(tokenizer, bank.attributes, 16, "train")
    batch = writer.write(EpisodeKind("title", 2), 6, (9,))
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss, scores = compute_loss(network, batch, features, answer_ids=writer.answer_ids)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert {"named", "covered", "differs", "policy"} <= set(scores)


def test_a_weight_without_a_place_is_refused(small: NetworkConfig) -> None:
    vision = AlignedVision(small)
    network = make_network(small, seed=0)
    network.decoder.blocks.append(network.decoder.blocks[0])
    with pytest.raises(ValueError, match="surplus"):
        to_llava(small, vision.tower, network)
