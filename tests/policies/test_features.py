from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pair_worlds import random_embeddings, random_features

from curator.errors import FeatureError
from curator.policies import Joint, SelectiveBackprop, TopK
from curator.rng import Noise

NOISE = Noise(seed=0, step=0)
IDS = np.arange(20)


def select(policy, features, num_selected=4):
    return policy.select(IDS, features, num_selected, NOISE)


@pytest.fixture
def embeddings():
    return random_embeddings(np.random.default_rng(0), 20)


JOINT = Joint(score="hard_learner", num_chunks=2)


@pytest.mark.parametrize("num_selected", [-1, 0, 21])
@pytest.mark.parametrize("policy", [TopK(), JOINT], ids=lambda policy: policy.name)
def test_impossible_number_is_an_error(policy, num_selected):
    features = random_features(policy.needs, 20)

    with pytest.raises(
        ValueError, match=rf"got {num_selected} for a super-batch of 20"
    ):
        select(policy, features, num_selected)


def test_missing_feature_names_what_was_given():
    with pytest.raises(
        FeatureError, match=r"needs .*learner\.loss'; got reference\.loss"
    ):
        select(TopK(), random_features(["reference.loss"], 20))
    with pytest.raises(FeatureError, match="got none"):
        select(TopK(), {})


@pytest.mark.parametrize("shape", [(19,), (20, 1)])
def test_loss_of_the_wrong_shape_is_an_error(shape):
    with pytest.raises(FeatureError, match=r"shape \(20,\); got float64 of shape"):
        select(TopK(score="hard_learner"), {"learner.loss": np.ones(shape)})


def test_loss_of_integers_is_an_error():
    with pytest.raises(FeatureError, match=r"must be float16.*; got int64 of shape"):
        select(TopK(score="hard_learner"), {"learner.loss": np.arange(20)})


def test_embeddings_where_a_loss_is_needed_are_an_error(embeddings):
    with pytest.raises(FeatureError, match=r"one float per .*; got PairEmbeddings"):
        select(TopK(score="hard_learner"), {"learner.loss": embeddings})


def test_array_where_embeddings_are_needed_is_an_error():
    with pytest.raises(FeatureError, match="must be PairEmbeddings; got float64"):
        select(JOINT, {"learner.embeddings": np.ones((20, 4))})


def test_embeddings_of_another_number_of_candidates_are_an_error():
    fewer = random_embeddings(np.random.default_rng(0), 19)

    with pytest.raises(FeatureError, match="one row for each of 20 candidates; got"):
        select(JOINT, {"learner.embeddings": fewer})


def with_targets(embeddings, targets):
    # Bypasses the shape check that only the tests have.
    broken = dataclasses.replace(embeddings)
    object.__setattr__(broken, "targets", targets)
    return broken


@pytest.mark.parametrize("shape", [(20, 5), (20,)])
def test_sides_of_different_shapes_are_an_error(embeddings, shape):
    broken = with_targets(embeddings, np.ones(shape, np.float32))

    with pytest.raises(FeatureError, match=r"of one shape \(B, D\); got float32"):
        select(JOINT, {"learner.embeddings": broken})


def test_embeddings_of_integers_are_an_error(embeddings):
    broken = with_targets(embeddings, np.ones((20, 8), np.int32))

    with pytest.raises(FeatureError, match=r"must be float16.*; got int32"):
        select(JOINT, {"learner.embeddings": broken})


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_logit_scale_must_be_a_positive_multiplier(embeddings, scale):
    broken = dataclasses.replace(embeddings, logit_scale=scale)

    with pytest.raises(FeatureError, match=r"logit_scale must be above 0, .*logarithm"):
        select(JOINT, {"learner.embeddings": broken})


@pytest.mark.parametrize("policy", [JOINT, TopK(score="hard_learner", loss="sigmoid")])
def test_sigmoid_loss_refuses_a_model_without_bias(embeddings, policy):
    without = dataclasses.replace(embeddings, logit_bias=None)

    with pytest.raises(
        FeatureError, match=r"'learner\.embeddings'.* needs .*logit_bias"
    ):
        select(policy, {"learner.embeddings": without})


def test_softmax_loss_needs_no_bias(embeddings):
    without = dataclasses.replace(embeddings, logit_bias=None)
    policy = dataclasses.replace(JOINT, loss="softmax")

    assert len(select(policy, {"learner.embeddings": without}).indices) == 4


def test_bias_must_be_finite(embeddings):
    broken = dataclasses.replace(embeddings, logit_bias=np.nan)

    with pytest.raises(FeatureError, match=r"logit_bias must be between .*; got nan"):
        select(JOINT, {"learner.embeddings": broken})


def test_models_may_have_different_widths_and_dtypes():
    rng = np.random.default_rng(0)
    features = {
        "learner.embeddings": random_embeddings(rng, 20, width=8),
        "reference.embeddings": random_embeddings(rng, 20, width=3, dtype=np.float16),
    }

    assert len(select(Joint(num_chunks=2), features).indices) == 4


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_candidate_with_a_bad_loss_of_either_model_is_set_aside(value):
    features = {
        f"{model}.loss": np.linspace(0, 1, 20) for model in ("learner", "reference")
    }
    features["learner.loss"][3] = value
    features["reference.loss"][7] = value

    selection = select(TopK(), features, 18)

    assert not {3, 7} & set(selection.indices.tolist())
    assert selection.stats["num_quarantined"] == 2


@pytest.mark.parametrize(
    ("memory", "given"),
    [
        (np.zeros((5, 2), np.float32), r"float32 of shape \(5, 2\)"),
        (np.zeros(5, np.float32), r"float32 of shape \(5,\)"),
        (np.zeros((5, 1)), r"float64 of shape \(5, 1\)"),
    ],
)
def test_memory_of_another_form_is_an_error(memory, given):
    features = {"learner.loss": np.ones(20), "memory": memory}

    with pytest.raises(
        FeatureError, match=rf"float32 of shape \(rows, 1\); got {given}"
    ):
        select(SelectiveBackprop(), features)


def test_embeddings_as_memory_are_an_error(embeddings):
    features = {"learner.loss": np.ones(20), "memory": embeddings}

    with pytest.raises(FeatureError, match="got PairEmbeddings"):
        select(SelectiveBackprop(), features)


@pytest.mark.parametrize("width", [0, 1, 7])
def test_memory_without_rows_may_have_any_width(width):
    memory = np.empty((0, width), np.float32)

    features = {"learner.loss": np.ones(20), "memory": memory}

    assert len(select(SelectiveBackprop(), features).indices) == 4
