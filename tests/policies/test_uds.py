from __future__ import annotations

import collections
import dataclasses
import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_worlds import scores_of

from curator.errors import FeatureError
from curator.policies import UDS, RememberingPolicy, _uds
from curator.rng import Noise
from curator.testing import assert_policy_contract
from curator.types import Features, Selection

NOISE = Noise(seed=0, step=0)
VARIANTS = [
    UDS(),
    UDS(mode="greedy"),
    UDS(alpha=0.0),
    UDS(mode="greedy", alpha=3.0, length_normalised=True),
    UDS(alpha=1.5e-3, official_vocabulary=1000),
]


def make_features(
    num: int, *, width: int = 12, rows: int = 9, seed: int = 0
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "learner.nuclear_norm": rng.gamma(2.0, size=num).astype(np.float32),
        "learner.projection": rng.standard_normal((num, width)).astype(np.float32),
        "learner.num_tokens": rng.integers(1, 50, num).astype(np.float32),
        "memory": rng.standard_normal((rows, width)).astype(np.float32),
    }


def remembered(selection: Selection) -> np.ndarray:
    assert selection.remember is not None
    return selection.remember


def test_policy_is_one_that_remembers():
    assert isinstance(UDS(), RememberingPolicy)


@pytest.mark.parametrize("num_rows", [1, 30])
@pytest.mark.parametrize("policy", VARIANTS, ids=repr)
def test_policy_keeps_the_contract(policy, num_rows):
    def needed(num: int) -> Features:
        features = make_features(num, rows=num_rows)
        return {name: features[name] for name in policy.needs}

    assert_policy_contract(policy, needed)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return math.dist(first.astype(float).tolist(), second.astype(float).tolist())


def mean_distance(row: np.ndarray, others: list[np.ndarray]) -> float:
    if not others:
        return 0.0
    return math.fsum(distance(row, other) for other in others) / len(others)


@pytest.mark.parametrize("num_rows", [0, 1, 7])
def test_score_is_utility_plus_mean_distance_from_memory(num_rows):
    features = make_features(300, rows=num_rows)  # more than one block of candidates

    selection = UDS(alpha=2.5).select(np.arange(300), features, 20, NOISE)

    scores = [
        float(utility) + 2.5 * mean_distance(row, list(features["memory"]))
        for utility, row in zip(
            features["learner.nuclear_norm"],
            features["learner.projection"],
            strict=True,
        )
    ]
    wanted = np.argsort(scores)[::-1][:20]
    assert selection.indices.tolist() == wanted.tolist()
    np.testing.assert_allclose(scores_of(selection), np.array(scores)[wanted])
    assert selection.weights.tolist() == [1.0] * 20


def test_without_memory_or_alpha_the_nuclear_norm_decides():
    features = make_features(30)
    by_norm = np.argsort(features["learner.nuclear_norm"])[::-1][:10].tolist()
    forgetful = {**features, "memory": np.empty((0, 1), np.float32)}  # of no width

    for policy, given_features in (
        (UDS(), forgetful),
        (UDS(alpha=0.0), features),
        (UDS(alpha=0.0, mode="greedy"), features),
    ):
        selection = policy.select(np.arange(30), given_features, 10, NOISE)
        assert selection.indices.tolist() == by_norm
        assert selection.stats["diversity_std"] == 0.0


@settings(max_examples=60, deadline=None)
@given(
    num=st.integers(1, 6),
    rows=st.integers(0, 4),
    alpha=st.floats(0.0, 10.0),
    seed=st.integers(0, 2**16),
)
def test_greedy_takes_what_an_exhaustive_search_takes_step_by_step(
    num, rows, alpha, seed
):
    features = make_features(num, width=3, rows=rows, seed=seed)
    utilities, projections = (
        features["learner.nuclear_norm"],
        features["learner.projection"],
    )

    selection = UDS(mode="greedy", alpha=alpha).select(
        np.arange(num), features, num, NOISE
    )

    seen, left, wanted = list(features["memory"]), list(range(num)), []
    for _ in range(num):
        scores = {
            i: float(utilities[i]) + alpha * mean_distance(projections[i], seen)
            for i in left
        }
        best = max(left, key=scores.__getitem__)
        wanted.append((best, scores[best]))
        seen.append(projections[best])
        left.remove(best)
    assert selection.indices.tolist() == [index for index, _ in wanted]
    np.testing.assert_allclose(scores_of(selection), [score for _, score in wanted])


def test_of_two_equal_novel_candidates_only_greedy_leaves_one():
    features: Features = {
        "learner.nuclear_norm": np.array([1.0, 1.0, 1.0, 0.9]),
        "learner.projection": np.array([[9, 0], [9, 0], [0, 0], [0, 5]], np.float32),
        "memory": np.array([[0, 0]], np.float32),
    }

    both = UDS(alpha=1.0).select(np.arange(4), features, 2, NOISE)
    one = UDS(alpha=1.0, mode="greedy").select(np.arange(4), features, 2, NOISE)

    assert sorted(both.indices.tolist()) == [0, 1]
    assert one.indices[0] in (0, 1)
    assert one.indices[1] == 3


def test_remembering_a_candidate_lowers_its_own_score_against_the_others():
    features = make_features(20, rows=5)
    features["learner.nuclear_norm"][:] = 1.0
    policy, ids = UDS(alpha=1.0), np.arange(20)
    chosen = int(policy.select(ids, features, 1, NOISE).indices[0])
    more = np.concatenate(
        [features["memory"], features["learner.projection"][[chosen]]]
    )

    def score(memory: np.ndarray) -> np.ndarray:
        selection = policy.select(ids, {**features, "memory": memory}, 20, NOISE)
        return scores_of(selection)[np.argsort(selection.indices)]

    lost = score(features["memory"]) - score(more)
    assert lost.argmax() == chosen
    assert lost[chosen] > 0


def test_only_the_newest_rows_of_memory_count_in_any_order():
    features = make_features(30, rows=10)
    policy, ids = UDS(buffer_size=4), np.arange(30)
    memory = features["memory"]

    newest = policy.select(ids, {**features, "memory": memory[-4:]}, 5, NOISE)
    whole = policy.select(ids, features, 5, NOISE)
    turned = policy.select(ids, {**features, "memory": memory[:-5:-1]}, 5, NOISE)
    oldest = policy.select(ids, {**features, "memory": memory[:4]}, 5, NOISE)

    assert policy.memory_rows == 4
    np.testing.assert_array_equal(scores_of(whole), scores_of(newest))
    np.testing.assert_allclose(scores_of(turned), scores_of(newest))
    assert not np.allclose(scores_of(oldest), scores_of(newest))


@pytest.mark.parametrize("mode", ["faithful", "greedy"])
def test_projections_of_the_chosen_are_remembered_in_selection_order(mode):
    features = make_features(30)

    selection = UDS(mode=mode).select(np.arange(30), features, 10, NOISE)

    assert remembered(selection).dtype == np.float32
    np.testing.assert_array_equal(
        remembered(selection), features["learner.projection"][selection.indices]
    )


@pytest.mark.parametrize("mode", ["faithful", "greedy"])
def test_steps_in_a_row_are_those_of_a_first_in_first_out_buffer(mode):
    policy = UDS(mode=mode, alpha=2.0, buffer_size=7)
    memory, buffer = (
        np.empty((0, 1), np.float32),
        collections.deque[np.ndarray](maxlen=7),
    )

    for step in range(6):  # three rows a step: the buffer wraps in the third
        features = {**make_features(12, seed=step), "memory": memory}
        selection = policy.select(np.arange(12), features, 3, Noise(seed=0, step=step))

        seen, taken, wanted = list(buffer), [], []
        for _ in range(3):
            scores = [
                float(utility) + 2.0 * mean_distance(row, seen)
                for utility, row in zip(
                    features["learner.nuclear_norm"],
                    features["learner.projection"],
                    strict=True,
                )
            ]
            left = [i for i in range(12) if i not in taken]
            taken.append(max(left, key=scores.__getitem__))
            wanted.append(scores[taken[-1]])
            if mode == "greedy":
                seen.append(features["learner.projection"][taken[-1]])
        assert selection.indices.tolist() == taken
        np.testing.assert_allclose(scores_of(selection), wanted)

        buffer.extend(features["learner.projection"][taken])
        held = [memory.reshape(-1, 12), remembered(selection)]
        memory = np.concatenate(held)[-policy.memory_rows :]
        np.testing.assert_array_equal(memory, np.array(buffer))


def test_lengths_divide_utilities_and_their_roots_projections():
    features = make_features(30)
    lengths = features["learner.num_tokens"]
    divided = {
        **features,
        "learner.nuclear_norm": features["learner.nuclear_norm"] / lengths,
        "learner.projection": features["learner.projection"]
        / np.sqrt(lengths)[:, None],
    }

    normalised = UDS(length_normalised=True).select(np.arange(30), features, 9, NOISE)
    plain = UDS().select(np.arange(30), divided, 9, NOISE)

    assert normalised.indices.tolist() == plain.indices.tolist()
    np.testing.assert_allclose(scores_of(normalised), scores_of(plain), rtol=1e-5)
    np.testing.assert_allclose(remembered(normalised), remembered(plain), rtol=1e-5)


def test_needs_lengths_only_where_they_are_divided_by():
    needs = {"learner.nuclear_norm", "learner.projection", "memory"}

    assert UDS().needs == needs
    assert UDS(length_normalised=True).needs == needs | {"learner.num_tokens"}


@pytest.mark.parametrize("unusable", [0.0, -1.0, np.nan])
def test_example_without_tokens_is_set_aside(unusable):
    features = make_features(6)
    features["learner.num_tokens"][2] = unusable

    selection = UDS(length_normalised=True).select(np.arange(6), features, 6, NOISE)

    assert selection.indices[-1] == 2
    assert selection.stats["num_quarantined"] == 1


@pytest.mark.parametrize("mode", ["faithful", "greedy"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_never_remembered(mode, bad):
    features = make_features(6)
    features["learner.projection"][1, 3] = bad
    features["learner.nuclear_norm"][4] = bad

    selection = UDS(mode=mode).select(np.arange(6), features, 6, NOISE)

    assert selection.stats["num_quarantined"] == 2
    assert sorted(selection.indices[4:].tolist()) == [1, 4]
    trained = [i for i in selection.indices if i != 1]  # 4 was trained on, too
    np.testing.assert_array_equal(
        remembered(selection), features["learner.projection"][trained]
    )


def test_super_batch_without_a_usable_candidate_is_a_uniform_draw():
    features = make_features(6)
    features["learner.projection"][:] = np.nan

    selection = UDS().select(np.arange(6), features, 3, NOISE)

    assert selection.stats == {"num_quarantined": 6.0, "num_topped_up": 3.0}
    assert remembered(selection).shape == (0, 12)


def test_float64_that_float32_cannot_hold_is_set_aside():
    features = make_features(4)
    projections = features["learner.projection"].astype(np.float64)
    projections[0, 0] = 1e300

    selection = UDS().select(
        np.arange(4), {**features, "learner.projection": projections}, 4, NOISE
    )

    assert selection.stats["num_quarantined"] == 1


def test_distances_of_near_copies_far_from_the_origin_keep_their_digits():
    far = 1e4 * np.ones((1, 64), np.float32)
    offsets = np.zeros((5, 64), np.float32)
    offsets[1:, 0] = [0.001, 0.01, 0.1, 1.0]
    projections = far + offsets
    features: Features = {
        "learner.nuclear_norm": np.zeros(5),
        "learner.projection": projections,
        "memory": far,
    }

    selection = UDS(alpha=1.0).select(np.arange(5), features, 5, NOISE)

    wanted = [distance(projections[i], far[0]) for i in selection.indices]
    np.testing.assert_allclose(scores_of(selection), wanted, rtol=1e-9)
    assert scores_of(selection)[-1] == 0.0


def test_many_copies_of_one_example_are_at_no_distance_from_each_other():
    row = make_features(1)["learner.projection"]
    features: Features = {
        "learner.nuclear_norm": np.zeros(300),
        "learner.projection": np.repeat(row, 300, axis=0),
        "memory": np.repeat(row, 20, axis=0),
    }

    for policy in (UDS(), UDS(mode="greedy")):
        selection = policy.select(np.arange(300), features, 20, NOISE)
        assert scores_of(selection).tolist() == [0.0] * 20


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), greedy=st.booleans())
def test_order_of_the_candidates_changes_no_bit(seed, greedy):
    rng = np.random.default_rng(seed)
    num = int(rng.integers(2, 40))
    ids = rng.permutation(1000)[:num]
    features = make_features(num, width=33, rows=17, seed=seed)
    order = rng.permutation(num)
    shuffled = {
        name: values if name == "memory" else values[order]
        for name, values in features.items()
    }
    policy = UDS(mode="greedy" if greedy else "faithful")

    first = policy.select(ids, features, num // 2 + 1, NOISE)
    second = policy.select(ids[order], shuffled, num // 2 + 1, NOISE)

    assert ids[first.indices].tolist() == ids[order][second.indices].tolist()
    np.testing.assert_array_equal(scores_of(first), scores_of(second))
    np.testing.assert_array_equal(remembered(first), remembered(second))


def test_scaling_all_logits_changes_no_choice():
    features = make_features(40)
    larger = {name: 8.0 * values for name, values in features.items()}

    for policy in (UDS(), UDS(mode="greedy")):
        chosen = [
            policy.select(np.arange(40), each, 15, NOISE).indices.tolist()
            for each in (features, larger)
        ]
        assert chosen[0] == chosen[1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_will_do(dtype):
    features = {name: v.astype(dtype) for name, v in make_features(20).items()}
    in_single = {name: v.astype(np.float32) for name, v in features.items()}

    for policy in VARIANTS:
        chosen = [
            policy.select(np.arange(20), each, 5, NOISE).indices.tolist()
            for each in (features, in_single)
        ]
        assert chosen[0] == chosen[1]


def test_statistics_tell_which_part_decides():
    features = make_features(50)
    one, ten = (
        UDS(alpha=alpha).select(np.arange(50), features, 5, NOISE).stats
        for alpha in (1.0, 10.0)
    )

    assert one["utility_std"] == pytest.approx(
        features["learner.nuclear_norm"].std(), rel=1e-5
    )
    assert ten["utility_std"] == one["utility_std"]
    assert ten["diversity_std"] == pytest.approx(10.0 * one["diversity_std"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mode", "exact", "mode must be one of faithful, greedy; got 'exact'"),
        ("alpha", -1.0, "alpha must be finite and at least 0; got -1.0"),
        ("alpha", math.inf, "alpha must be finite and at least 0; got inf"),
        ("buffer_size", 0, "buffer_size must be at least 1; got 0"),
        ("official_vocabulary", 0, "official_vocabulary must be the size"),
    ],
)
def test_wrong_fields_are_refused(field, value, message):
    # The checked constructor of the tests would refuse some types first.
    policy = object.__new__(UDS)
    for known in dataclasses.fields(UDS):
        object.__setattr__(
            policy, known.name, value if known.name == field else known.default
        )

    with pytest.raises(ValueError, match=message):
        policy.__post_init__()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learner.nuclear_norm", np.ones((8, 1)), r"one float per candidate.*\(8, 1\)"),
        ("learner.nuclear_norm", np.array(["a"] * 8), "an array of numbers; got <U1"),
        ("learner.projection", np.ones(8), r"one row of floats per candidate.*\(8,\)"),
        ("learner.projection", np.ones((7, 3)), r"shape \(8, D\); got float64.*7, 3"),
        ("learner.num_tokens", np.ones(7), r"one number per candidate.*\(7,\)"),
        ("memory", np.ones((4, 5)), r"rows as wide as learner.projection.*\(4, 5\)"),
        ("memory", np.ones(12), r"shape \(rows, 12\); got float64 of shape \(12,\)"),
        ("memory", np.full((1, 12), np.nan), "'memory' must be finite"),
    ],
)
def test_wrong_features_are_refused(name, value, message):
    features = {**make_features(8), name: value}

    with pytest.raises(FeatureError, match=message):
        UDS(length_normalised=True).select(np.arange(8), features, 2, NOISE)


@pytest.mark.parametrize("name", sorted(UDS(length_normalised=True).needs))
def test_missing_features_are_named(name):
    features = make_features(8)
    del features[name]

    with pytest.raises(FeatureError, match=f"needs the feature '{name}'; got learner"):
        UDS(length_normalised=True).select(np.arange(8), features, 2, NOISE)


def test_ties_are_broken_by_id_and_not_by_position():
    features = make_features(40)
    features["learner.nuclear_norm"][:] = 1.0
    ids = np.arange(40)

    first, second = (
        UDS(alpha=0.0).select(some, features, 5, NOISE).indices
        for some in (ids, ids[::-1].copy())
    )

    assert ids[first].tolist() == ids[::-1][second].tolist()
    assert not any(a == b for a, b in itertools.pairwise([*first, -1, *second]))


def test_documented_example_runs():
    results = doctest.testmod(_uds)

    assert results.attempted > 0
    assert results.failed == 0
