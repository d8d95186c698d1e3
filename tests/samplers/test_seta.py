import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.errors import ConfigError
from curator.samplers import Run, SeTa


def start(sampler, num_examples, *, size=1, seed=0, num_epochs: int | None = 1000):
    return sampler.start(
        Run(
            num_examples=num_examples,
            super_batch_size=size,
            seed=seed,
            num_epochs=num_epochs,
        )
    )


def ids_of(plan):
    ids, weights = plan.take(0, plan.num_examples)
    assert weights is None
    assert plan.mean_weight == 1.0
    return np.sort(ids)


def trained(losses, **fields):
    """Returns a planner after an epoch with these losses; NaN is not seen."""
    losses = np.asarray(losses, np.float32)
    planner = start(SeTa(**fields), len(losses))
    planner.plan(0)
    planner.observe(np.arange(len(losses)), losses)
    return planner


FIVE_GROUPS = np.repeat([0.0, 10, 20, 30, 40], 20) + np.tile([0, 0.1], 50)


@pytest.mark.parametrize(
    ("num_groups", "window", "width"),
    [
        (5, 0.6, 3),
        (5, 0.9, 5),  # the published code rounds to 4
        (10, 0.5, 5),
        (10, 0.7, 7),  # 7.000000000000001 in floats
        (10, 0.01, 1),
        (3, 1.0, 3),
    ],
)
def test_window_is_as_wide_as_in_the_paper(num_groups, window, width):
    sampler = SeTa(num_groups=num_groups, window=window)

    assert len(sampler.window_of(4, num_groups)) == width


@given(
    num_groups=st.integers(1, 30),
    window=st.floats(0.01, 1.0),
    epoch=st.integers(0, 1000),
)
def test_windows_go_round_from_easy_to_hard_and_meet_every_group(
    num_groups, window, epoch
):
    sampler = SeTa(num_groups=num_groups, window=window)
    first = sampler.window_of(epoch, num_groups)
    num_windows = num_groups - len(first) + 1
    windows = [sampler.window_of(epoch + i, num_groups) for i in range(num_windows)]

    assert set().union(*windows) == set(range(num_groups))
    assert sampler.window_of(epoch + num_windows, num_groups) == first
    for one, other in itertools.pairwise(windows):
        assert other.start in (one.start + 1, 0)


def test_epochs_train_on_the_groups_of_their_window():
    planner = trained(FIVE_GROUPS)
    for epoch in range(1, 8):
        first = epoch % 3
        groups = np.unique(FIVE_GROUPS[ids_of(planner.plan(epoch))] // 10)

        assert groups.tolist() == [first, first + 1, first + 2]


@given(
    losses=st.lists(st.floats(0, 100, width=32), min_size=2, max_size=80),
    epoch=st.integers(1, 6),
)
def test_what_is_trained_on_is_a_range_of_losses(losses, epoch):
    losses = np.array(losses, np.float32)
    planner = trained(losses, num_groups=4, window=0.5)
    for skipped in range(1, epoch):
        planner.plan(skipped)
    ids = ids_of(planner.plan(epoch))
    inside = (losses >= losses[ids].min()) & (losses <= losses[ids].max())

    assert np.array_equal(ids, np.flatnonzero(inside))


def test_random_part_is_left_out_before_grouping():
    losses = np.tile(FIVE_GROUPS, 10)
    planner = trained(losses, prune_ratio=0.3)
    seen = np.zeros(1000)
    for epoch in range(1, 31):
        ids = ids_of(planner.plan(epoch))
        groups, counts = np.unique(losses[ids] // 10, return_counts=True)
        seen[ids] += 1

        assert len(groups) == 3
        assert abs(counts.sum() - 420) < 5 * np.sqrt(1000 * 0.6 * 0.4 * 0.3)
    # The middle group is in every window.
    middle = seen[losses // 10 == 2]
    assert middle.mean() == pytest.approx(21, rel=0.03)
    assert middle.max() < 30


def test_first_epoch_has_all_groups():
    assert len(ids_of(start(SeTa(), 100).plan(0))) == 100
    assert len(ids_of(start(SeTa(prune_ratio=0.3), 101).plan(0))) == 70


@pytest.mark.parametrize("num_epochs", [8, 10, 15, 30, 90])
def test_last_epochs_have_a_random_part_of_the_whole_pool(num_epochs):
    planner = start(SeTa(prune_ratio=0.1), 101, num_epochs=num_epochs)
    last = num_epochs // 8
    parts = []
    for epoch in range(num_epochs):
        ids = ids_of(planner.plan(epoch))
        planner.observe(np.arange(101), np.arange(101, dtype=np.float32))
        if epoch >= num_epochs - last:
            parts.append(tuple(ids.tolist()))
            assert len(ids) == 90  # floor(0.9 * 101)
        elif epoch:
            assert len(ids) < 80

    assert len(set(parts)) == last


@pytest.mark.parametrize("value", [np.log(10), 3.0, 0.0])
def test_equal_losses_are_all_kept(value):
    assert len(ids_of(trained(np.full(50_000, value)).plan(1))) == 50_000


def test_examples_without_a_loss_are_in_every_window():
    losses = np.append(FIVE_GROUPS, [np.nan, np.inf, -np.inf])
    planner = trained(losses)
    for epoch in range(1, 7):
        ids = ids_of(planner.plan(epoch))
        assert set(range(100, 103)) <= set(ids.tolist())
        assert len(ids) == 63


def test_epoch_of_nothing_but_unseen_examples_has_them_all():
    planner = start(SeTa(), 50)
    planner.plan(0)

    assert len(ids_of(planner.plan(1))) == 50


def test_window_smaller_than_a_super_batch_is_topped_up():
    losses = np.append(np.zeros(95), [1000, 1000, 1001, 5000, 9000]).astype(np.float32)
    planner = start(SeTa(num_groups=5, window=0.2), 100, size=30)
    planner.plan(0)
    planner.observe(np.arange(100), losses)
    sizes, added = [], np.zeros(100)
    for epoch in range(1, 101):
        ids = ids_of(planner.plan(epoch))
        sizes.append(len(ids))
        if epoch % 5 == 4:
            assert 99 in ids
            added[ids] += 1

    assert set(sizes) == {30, 95}
    # 29 of the 99 others, in each of 20 epochs.
    assert abs(added[:99].mean() - 20 * 29 / 99) < 1e-9
    assert added[:99].max() < 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prune_ratio": 1.0}, r"prune_ratio: in \[0, 1\); got 1$"),
        ({"num_groups": 0}, "num_groups: at least 1; got 0"),
        ({"window": 0.0}, r"window: in \(0, 1\]; got 0"),
        ({"window": 1.1}, r"window: in \(0, 1\]; got 1.1"),
        ({"anneal": -0.1}, r"anneal: in \[0, 1\]; got -0.1"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SeTa(**fields)


def test_run_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"\[1, 90\], as with prune_ratio = 0.1"):
        start(SeTa(prune_ratio=0.1), 101, size=91)
    with pytest.raises(ConfigError, match="set num_epochs, or anneal"):
        start(SeTa(), 10, num_epochs=None)
    assert start(SeTa(anneal=0.0), 10, num_epochs=None).num_examples_per_epoch is None
