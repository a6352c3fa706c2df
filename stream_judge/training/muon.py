"""Muon: momentum whose update of a weight matrix is made orthogonal.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
with its quintic Newton-Schulz coefficients. `torch.optim.Muon` runs the iteration in
bfloat16, which takes seconds a step on processors that cannot compute in it; this one
stays in float32 and treats the matrices of one shape together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Updates matrices only; everything else belongs to another optimiser.

    Args:
        params: float32 matrices.
        lr: Step size, in spectral norm of the update.
        momentum: Share of the running gradient that is kept (Nesterov).
        weight_decay: Decoupled decay, times `lr`.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient.

        Raises:
            ValueError: If a closure is given; none is supported.
        """
        if closure is not None:
            raise ValueError("Muon does not take a closure")
        for group in self.param_groups:
            updates: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                for part, its_update in zip(_parts(p), _parts(update), strict=True):
                    updates[part.shape].append((part, its_update))
            for shape, pairs in updates.items():
                stacked = orthogonalise(torch.stack([update for _, update in pairs]))
                rate = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for (part, _), update in zip(pairs, stacked, strict=True):
                    part.mul_(1 - group["lr"] * group["weight_decay"])
                    part.add_(update, alpha=-rate)


def _parts(matrix: Tensor) -> tuple[Tensor, ...]:
    """The square matrices that a fused projection is made of (q, k and v), else the matrix."""
    rows, columns = matrix.shape
    return matrix.split(columns) if rows % columns == 0 else (matrix,)


def orthogonalise(matrices: Tensor) -> Tensor:
    """Nearly the nearest semi-orthogonal matrices: singular values come near 1.

    Args:
        matrices: float32 [N, rows, columns].

    Returns:
        float32 [N, rows, columns]; singular values about 0.7 to 1.2, less where
        they were almost nothing.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x
