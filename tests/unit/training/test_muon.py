from __future__ import annotations

import pytest
import torch
from torch import nn

from stream_judge.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 48, 16), (2, 16, 48)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape) * 50))
    assert values.max() < 1.3
    # A direction that is almost missing (a square random matrix has one) grows more slowly.
    assert values.flatten().sort().values[len(values)] > 0.6


def test_each_matrix_is_treated_alone() -> None:
    torch.manual_seed(1)
    many = torch.randn(4, 12, 8)
    alone = torch.cat([orthogonalise(one[None]) for one in many])
    torch.testing.assert_close(orthogonalise(many), alone)


def test_a_step_goes_against_the_gradient_by_the_rate() -> None:
    torch.manual_seed(2)
    weight = nn.Parameter(torch.zeros(8, 8))
    weight.grad = torch.randn(8, 8)
    Muon([weight], 0.1).step()
    assert (weight * weight.grad).sum() < 0
    assert 0.05 < torch.linalg.matrix_norm(weight, 2) < 0.13


def test_a_matrix_without_gradient_stays() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    Muon([weight], 0.1).step()
    assert torch.equal(weight, torch.ones(4, 4))


def test_it_goes_on_from_its_state() -> None:
    torch.manual_seed(3)
    gradients = torch.randn(4, 6, 6)

    def train(weight: nn.Parameter, optimiser: Muon, parts: torch.Tensor) -> None:
        for gradient in parts:
            weight.grad = gradient.clone()
            optimiser.step()

    whole = nn.Parameter(torch.ones(6, 6))
    train(whole, Muon([whole], 0.1), gradients)
    first = nn.Parameter(torch.ones(6, 6))
    stopped = Muon([first], 0.1)
    train(first, stopped, gradients[:2])
    second = nn.Parameter(first.detach().clone())
    resumed = Muon([second], 0.1)
    resumed.load_state_dict(stopped.state_dict())
    train(second, resumed, gradients[2:])
    assert torch.equal(whole, second)


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="closure"):
        Muon([nn.Parameter(torch.ones(2, 2))], 0.1).step(lambda: 0.0)
