"""A very small network, tokenizer and bank, shared by the training tests."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="training tests need torch: pip install '.[train]'")

from tokenizers import Tokenizer

from stream_judge.catalogue.bank import render_bank
from stream_judge.training.network import NetworkConfig
from stream_judge.training.tokenizer import train_tokenizer
from stream_judge.training.vision import Bank

SMALL = NetworkConfig(
    vision_width=32, vision_layers=2, vision_heads=2, width=48, heads=2, inner=64, vocabulary=1500
)


@pytest.fixture(scope="session")
def small() -> NetworkConfig:
    return SMALL


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(SMALL.vocabulary, seed=0, texts=400)


@pytest.fixture(scope="session")
def bank() -> Bank:
    return Bank(*render_bank(40, seed=77, processes=1))
