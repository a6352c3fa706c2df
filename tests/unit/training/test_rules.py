from __future__ import annotations

import numpy as np
import pytest

from stream_judge.training.rules import ANSWERS, PRIOR, RULES, ideal_observer, seen_before

COLOUR = 1 << 1


def test_prior_is_a_distribution_over_the_fifteen_rules() -> None:
    assert len(RULES) == 15
    assert PRIOR.sum() == pytest.approx(1.0)
    assert (PRIOR > 0).all()


def test_a_difference_matters_exactly_when_its_attribute_counts() -> None:
    only_colour, all_count = RULES.index((1,)), RULES.index((0, 1, 2, 3))
    assert not ANSWERS[only_colour, COLOUR]
    assert ANSWERS[only_colour, 1 << 0]
    assert ANSWERS[:, 0].all()
    assert not ANSWERS[all_count, 1:].any()


def test_ideal_observer_is_certain_once_the_difference_was_answered() -> None:
    differences = np.array([[COLOUR, COLOUR], [COLOUR, COLOUR]])
    shown = np.array([[True, True], [False, False]])
    p = ideal_observer(differences, shown)
    assert p[0, 1] == pytest.approx(1.0)
    assert p[1, 1] == pytest.approx(0.0)


def test_ideal_observer_starts_from_the_prior() -> None:
    p = ideal_observer(np.array([[COLOUR]]), np.array([[True]]))
    expected = sum(PRIOR[r] for r, rule in enumerate(RULES) if 1 not in rule)
    assert p[0, 0] == pytest.approx(expected)


def test_seen_before_reports_the_latest_label() -> None:
    differences = np.array([[1, 1, 1, 2]])
    shown = np.array([[True, False, True, True]])
    assert seen_before(differences, shown).tolist() == [[0, 1, 2, 0]]
