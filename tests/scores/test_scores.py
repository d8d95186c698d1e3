from __future__ import annotations

from typing import get_args

import pytest

from curator.scores import PAIR_SCORES, SCORES, PairLoss, ScoreName


@pytest.mark.parametrize(
    ("name", "learner_loss", "reference_loss", "score"),
    [
        ("learnability", 3.0, 1.0, 2.0),
        ("easy_reference", 3.0, 1.0, -1.0),
        ("hard_learner", 3.0, 1.0, 3.0),
    ],
)
def test_score_of_two_losses(name, learner_loss, reference_loss, score):
    losses = {"learner": learner_loss, "reference": reference_loss}

    found = sum(factor * losses[model] for model, factor in SCORES[name].terms)

    assert found == score


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("learnability", ["learner", "reference"]),
        ("easy_reference", ["reference"]),
        ("hard_learner", ["learner"]),
    ],
)
def test_score_names_the_models_it_needs(name, models):
    assert [model for model, _ in SCORES[name].terms] == models


def test_the_types_list_what_is_registered():
    assert get_args(ScoreName) == tuple(SCORES)
    assert get_args(PairLoss) == tuple(PAIR_SCORES)
