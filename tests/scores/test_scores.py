from __future__ import annotations

from typing import get_args

import pytest

from curator.scores import PAIR_COSTS, SCORES, PairLoss, PairScoreName, ScoreName


@pytest.mark.parametrize(
    ("name", "learner_loss", "reference_loss", "score"),
    [
        ("learnability", 3.0, 1.0, 2.0),
        ("easy_reference", 3.0, 1.0, -1.0),
        ("hard_learner", 3.0, 1.0, 3.0),
        ("loss", 3.0, 1.0, 3.0),
    ],
)
def test_score_of_two_losses(name, learner_loss, reference_loss, score):
    losses = {"learner.loss": learner_loss, "reference.loss": reference_loss}

    found = sum(factor * losses[feature] for feature, factor in SCORES[name].terms)

    assert found == score


@pytest.mark.parametrize("name", ["entropy", "grad_norm", "nuclear_norm"])
def test_score_of_one_feature_of_the_learner(name):
    assert SCORES[name].terms == ((f"learner.{name}", 1.0),)


def test_loss_and_hard_learner_are_one_score():
    assert SCORES["loss"] == SCORES["hard_learner"]


def test_only_differences_may_be_negative():
    signed = {name for name, score in SCORES.items() if score.may_be_negative}

    assert signed == {"easy_reference", "learnability"}


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("learnability", ["learner", "reference"]),
        ("easy_reference", ["reference"]),
        ("hard_learner", ["learner"]),
    ],
)
def test_score_names_the_models_it_needs(name, models):
    assert [model for model, _ in SCORES[name].models] == models


def test_the_types_list_what_is_registered():
    assert get_args(ScoreName) == tuple(SCORES)
    assert set(get_args(PairScoreName)) < set(SCORES)
    assert get_args(PairLoss) == tuple(PAIR_COSTS)
