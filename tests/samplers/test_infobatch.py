import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.errors import ConfigError
from curator.samplers import InfoBatch, Run
from curator.samplers._infobatch import num_kept

BUCKETS = {"prune_ratio": [0.75, 0.5], "percentiles": [20.0, 85.0]}


def start(sampler, num_examples, *, size=1, seed=0, num_epochs=None):
    return sampler.start(
        Run(
            num_examples=num_examples,
            super_batch_size=size,
            seed=seed,
            num_epochs=num_epochs,
        )
    )


def trained(losses, **fields):
    """Returns a planner after an epoch with these losses; NaN is not seen."""
    losses = np.asarray(losses, np.float32)
    planner = start(InfoBatch(anneal=0.0, **fields), len(losses))
    planner.plan(0)
    planner.observe(np.arange(len(losses)), losses)
    return planner


def weight_of(plan, num_examples):
    """Returns each example's weight in a plan, 0 for those that are left out."""
    ids, weights = plan.take(0, plan.num_examples)
    by_id = np.zeros(num_examples)
    by_id[ids] = 1 if weights is None else weights
    return by_id


# -- sizes and weights


@given(
    num_low=st.integers(0, 10**9),
    share=st.fractions(0, 1),
    least=st.fractions(0, 1),
)
def test_low_losses_that_are_kept_weigh_as_much_as_all_of_them(num_low, share, least):
    kept = num_kept(num_low, share, least)

    assert (kept >= 1) == (num_low >= 1)
    assert max(share * num_low - Fraction(1, 2), least * num_low) <= kept <= num_low
    if kept:
        assert kept * Fraction(num_low, kept) == num_low
        assert not least or Fraction(num_low, kept) <= 1 / least


@pytest.mark.parametrize(("num_low", "kept"), [(1, 1), (2, 1), (3, 2), (51, 26)])
def test_small_buckets_lose_nothing_to_rounding(num_low, kept):
    # The published int(keep * n) keeps 0 of 1, and 0.98 of the weight of 51.
    losses = [0.0] * num_low + [100.0] * num_low
    plan = trained(losses).plan(1)
    weights = weight_of(plan, 2 * num_low)

    assert plan.num_examples == num_low + kept
    assert weights.sum() == pytest.approx(2 * num_low, rel=1e-6)
    assert set(weights[:num_low][weights[:num_low] > 0]) == {np.float32(num_low / kept)}


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("num_low", range(1, 9))
def test_mean_over_all_subsets_is_the_sum_over_the_pool(num_low, ratio):
    gradients = np.random.default_rng(num_low).standard_normal((num_low + 3, 4))
    sampler = InfoBatch(prune_ratio=ratio, anneal=0.0)
    kept = num_kept(num_low, sampler.keep_shares[0], Fraction(0))
    sums = [
        gradients[num_low:].sum(0) + num_low / kept * gradients[list(subset)].sum(0)
        for subset in itertools.combinations(range(num_low), kept)
    ]

    assert np.mean(sums, axis=0) == pytest.approx(gradients.sum(0), abs=1e-12)
    # And that is what a plan has: these sizes, with these weights.
    losses = np.concatenate([np.arange(num_low), np.full(3, 1e4)])
    weights = weight_of(trained(losses, prune_ratio=ratio).plan(1), num_low + 3)
    assert np.count_nonzero(weights[:num_low]) == kept
    assert set(weights[:num_low]) <= {0.0, np.float32(num_low / kept)}
    assert (weights[num_low:] == 1).all()


def test_every_subset_of_the_low_losses_is_as_likely():
    planner = trained([0, 0.1, 0.2, 0.3, 0.4, 9])
    counts = np.zeros((5, 5))
    for epoch in range(1, 501):
        low = np.flatnonzero(weight_of(planner.plan(epoch), 6)[:5])
        counts[tuple(low)] += 1
    chi_square = sum((count - 50) ** 2 / 50 for count in counts[counts > 0])

    assert np.count_nonzero(counts) == 10
    assert abs(chi_square - 9) < 5 * np.sqrt(2 * 9)


def test_variance_of_the_sum_is_that_of_a_draw_of_fixed_size():
    num_low, kept = 12, 6
    gradients = np.random.default_rng(0).standard_normal((num_low + 4, 3))
    planner = trained(np.append(np.arange(num_low), np.full(4, 1e4)))
    plans = [planner.plan(epoch) for epoch in range(1, 601)]
    sums = np.array([weight_of(plan, num_low + 4) @ gradients for plan in plans])
    spread = np.trace(np.cov(gradients[:num_low].T))
    expected = num_low**2 / kept * (1 - kept / num_low) * spread
    squares = ((sums - gradients.sum(0)) ** 2).sum(1)

    assert abs(squares.mean() - expected) < 3 * squares.std() / np.sqrt(len(squares))


def test_smallest_share_bounds_the_weight():
    losses = np.append(np.zeros(14), 9)
    loose = weight_of(trained(losses, prune_ratio=0.9).plan(1), 15)
    bounded = weight_of(trained(losses, prune_ratio=0.9, min_inclusion=0.1).plan(1), 15)

    assert loose.max() == 14
    assert bounded.max() == 7


def test_mean_weight_is_exact():
    plan = trained([0, 0, 0, 9, 9, 9, 9]).plan(1)

    assert plan.num_examples == 6
    assert plan.mean_weight == 7 / 6


# -- which are low


@pytest.mark.parametrize("fields", [{}, BUCKETS])
@pytest.mark.parametrize("value", [np.log(10), 3.0, 0.0, 1e-20])
def test_equal_losses_are_all_kept(value, fields):
    plan = trained(np.full(50_000, value), **fields).plan(1)

    assert plan.num_examples == 50_000
    assert plan.take(0, 5)[1] is None


def test_first_epoch_has_every_example():
    plan = start(InfoBatch(anneal=0.0), 100).plan(0)

    assert plan.num_examples == 100
    assert plan.mean_weight == 1.0


def test_examples_without_a_loss_are_kept_whole():
    losses = np.arange(100.0)
    losses[::3] = np.nan
    weights = weight_of(trained(losses).plan(1), 100)

    assert (weights[::3] == 1).all()
    assert (weights == 0).sum() == 17
    assert weights.sum() == pytest.approx(100)


def test_losses_that_are_not_finite_leave_the_example_as_it_was():
    losses = np.arange(10, dtype=np.float32)
    planner, other = trained(losses), trained(losses)
    bad = np.array([np.nan, np.inf, -np.inf], np.float32)
    planner.observe(np.array([0, 5, 9]), bad)

    for epoch in range(1, 4):
        assert np.array_equal(
            weight_of(planner.plan(epoch), 10), weight_of(other.plan(epoch), 10)
        )


def test_pruned_examples_keep_their_loss_and_come_back_when_the_mean_falls():
    planner = trained([1, 1, 1, 1, 9, 9, 9, 9])
    plan = planner.plan(1)
    ids, _ = plan.take(0, plan.num_examples)
    pruned = np.setdiff1d(np.arange(8), ids)
    before = planner._losses[pruned].tobytes()
    planner.observe(ids, np.full(len(ids), 0.1, np.float32))

    assert len(pruned) == 2
    assert planner._losses[pruned].tobytes() == before
    assert (weight_of(planner.plan(2), 8)[pruned] == 1).all()


@given(
    losses=st.lists(st.floats(0, 100, width=32), min_size=2, max_size=50),
    data=st.data(),
)
def test_raising_a_loss_above_the_mean_keeps_the_example(losses, data):
    losses = np.array(losses, np.float32)
    raised = data.draw(st.integers(0, len(losses) - 1))
    losses[raised] = losses.max() + 1

    assert weight_of(trained(losses).plan(1), len(losses))[raised] == 1


def test_share_of_what_is_kept_is_that_of_the_low_losses():
    num_examples = 1000
    planner = start(InfoBatch(anneal=0.25), num_examples, num_epochs=8)
    total = saved = 0
    for epoch in range(8):
        plan = planner.plan(epoch)
        total += plan.num_examples
        if 0 < epoch < 6:
            saved += 250
        losses = (np.arange(num_examples) >= 500).astype(np.float32)
        planner.observe(np.arange(num_examples), losses)

    assert total == num_examples * 8 - saved


# -- buckets


def test_buckets_keep_their_share_with_its_weight():
    weights = weight_of(trained(np.arange(1001.0), **BUCKETS).plan(1), 1001)

    assert np.unique(weights[:200]).tolist() == [0, 4]
    assert np.unique(weights[200:850]).tolist() == [0, 2]
    assert (weights[850:] == 1).all()
    assert np.count_nonzero(weights) == 50 + 325 + 151
    assert weights.sum() == 1001


def test_loss_at_a_percentile_is_in_the_upper_bucket_in_every_epoch():
    # 20 % and 85 % are the losses 20 and 85, and all of their copies.
    losses = np.repeat(np.arange(101.0), 1)
    losses[15:20] = 20
    planner = trained(losses, prune_ratio=[0.9, 0.0], percentiles=[20.0, 85.0])
    for epoch in range(1, 30):
        weights = weight_of(planner.plan(epoch), 101)
        assert (weights[15:] == 1).all()
        assert np.count_nonzero(weights[:15]) == 2


def test_buckets_are_drawn_apart():
    planner = trained(
        np.arange(1000) // 500, prune_ratio=[0.5, 0.5], percentiles=[10.0, 90.0]
    )
    low = np.append(np.zeros(400), np.append(np.ones(400), np.full(200, 9)))
    planner.observe(np.arange(1000), low.astype(np.float32))
    planner = trained(low, prune_ratio=[0.5, 0.5], percentiles=[41.0, 81.0])
    kept = weight_of(planner.plan(1), 1000) > 0

    assert kept[:400].sum() == kept[400:800].sum() == 200
    assert 150 < (kept[:400] == kept[400:800]).sum() < 250


# -- annealing


@pytest.mark.parametrize("num_epochs", [1, 7, 8, 10, 15, 30, 90])
def test_last_epochs_have_every_example_and_no_weight_left_over(num_epochs):
    planner = start(InfoBatch(), 50, num_epochs=num_epochs)
    for epoch in range(num_epochs):
        plan = planner.plan(epoch)
        planner.observe(np.arange(50), np.arange(50, dtype=np.float32))

        if epoch >= num_epochs - num_epochs // 8:
            assert (weight_of(plan, 50) == 1).all()
            assert plan.mean_weight == 1.0
        else:
            assert (plan.num_examples < 50) == (epoch > 0)


def test_unknown_number_of_epochs_is_refused():
    with pytest.raises(ConfigError, match=r"the last 0.125 .* set num_epochs"):
        start(InfoBatch(), 10)


# -- configuration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prune_ratio": 1.0}, r"prune_ratio: in \[0, 1\); got 1$"),
        ({"prune_ratio": -0.5}, r"prune_ratio: in \[0, 1\); got -0.5"),
        ({"prune_ratio": float("nan")}, r"prune_ratio: in \[0, 1\); got nan"),
        ({"prune_ratio": [0.5]}, r"a list of one for each .*got \[0.5\] for .* = \[\]"),
        (
            {"percentiles": [20.0]},
            r"a list .*got 0.5 for .* = \[20.0\]",
        ),
        ({"prune_ratio": [0.5, 0.5], "percentiles": [20.0]}, "a list of one for each"),
        ({"prune_ratio": [0.5, 1.5], "percentiles": [2.0, 3.0]}, "prune_ratio: in"),
        ({"prune_ratio": [0.5, 0.5], "percentiles": [30.0, 20.0]}, "rising, between"),
        ({"prune_ratio": [0.5], "percentiles": [0.0]}, "percentiles: at most 100"),
        (
            {"prune_ratio": [0.5], "percentiles": [100.0]},
            r"and 100; got \[100",
        ),
        (
            {"prune_ratio": [0.5] * 101, "percentiles": [i / 2 for i in range(1, 102)]},
            "at most 100",
        ),
        ({"anneal": 1.5}, r"anneal: in \[0, 1\]; got 1.5"),
        ({"min_inclusion": -0.1}, r"min_inclusion: in \[0, 1\]; got -0.1"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        InfoBatch(**fields)


@pytest.mark.parametrize("fields", [{}, {"prune_ratio": 0.9}, BUCKETS])
@given(data=st.data())
def test_epoch_is_never_smaller_than_is_said(fields, data):
    losses = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=60))
    fewest = InfoBatch(**fields)._fewest(len(losses))

    assert trained(losses, **fields).plan(1).num_examples >= fewest


def test_super_batch_that_pruning_may_not_leave_is_refused():
    message = (
        r"super_batch_size: in \[1, 51\], as with prune_ratio = 0.5 an epoch may be "
        r"left with 51 of the pool's 101 examples; got 64"
    )
    with pytest.raises(ConfigError, match=message):
        start(InfoBatch(anneal=0.0), 101, size=64)
