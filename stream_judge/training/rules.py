"""Rules (which attributes count), their prior, and the ideal observer of samples."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

#: The 15 non-empty sets of attributes that may count, as tuples of attribute indices.
RULES: tuple[tuple[int, ...], ...] = tuple(
    subset for size in range(1, 5) for subset in itertools.combinations(range(4), size)
)
#: bool [15, 4]: does attribute a count under rule r.
COUNTED: NDArray[np.bool_] = np.array([[a in rule for a in range(4)] for rule in RULES])
#: The prior the episodes are drawn from. Real policies mostly count everything or
#: except one thing, so these get more weight than a uniform draw would give them.
_SHARE_BY_SIZE = {1: 0.22 / 4, 2: 0.0, 3: 0.33 / 4, 4: 0.15}
PRIOR: NDArray[np.float64] = np.array(
    [_SHARE_BY_SIZE[len(rule)] + 0.30 / len(RULES) for rule in RULES]
)
#: bool [15, 16]: the right answer of rule r for a bit mask of differing attributes.
ANSWERS: NDArray[np.bool_] = np.array(
    [[not any(mask >> a & 1 for a in rule) for mask in range(16)] for rule in RULES]
)


def seen_before(differences: NDArray[np.int64], shown: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What earlier samples say about each position's own set of differences.

    Args:
        differences: int [B, K], bit masks of differing attributes.
        shown: bool [B, K], the answers shown (which may be wrong on purpose).

    Returns:
        int [B, K]: 0 = not seen, 1 = seen with Yes, 2 = seen with No (the latest counts).
    """
    result = np.zeros(differences.shape, np.int64)
    for k in range(1, differences.shape[1]):
        for j in range(k):
            same = differences[:, j] == differences[:, k]
            result[same, k] = np.where(shown[same, j], 1, 2)
    return result


def ideal_observer(differences: NDArray[np.int64], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """P(Yes) at each position for one who knows `PRIOR` and sees all earlier samples.

    The exact posterior over the 15 rules. An answer that no rule allows (possible only
    with noisy labels) is ignored.

    Args:
        differences: int [B, K], bit masks of differing attributes.
        shown: bool [B, K], the answers shown.

    Returns:
        float64 [B, K].
    """
    batch, positions = differences.shape
    posterior = np.tile(PRIOR, (batch, 1))
    result = np.zeros((batch, positions))
    for k in range(positions):
        says = ANSWERS[:, differences[:, k]].T
        result[:, k] = (posterior * says).sum(1) / posterior.sum(1)
        agreeing = posterior * (says == shown[:, k : k + 1])
        possible = agreeing.sum(1, keepdims=True) > 0
        posterior = np.where(possible, agreeing, posterior)
    return result
