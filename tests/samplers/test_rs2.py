import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.errors import ConfigError
from curator.samplers import RS2, Permutation, Run


def start(sampler, num_examples, *, size=1, seed=0, **columns):
    return sampler.start(
        Run(
            num_examples=num_examples,
            super_batch_size=size,
            seed=seed,
            columns=columns,
        )
    )


def ids_of(planner, epoch):
    plan = planner.plan(epoch)
    ids, weights = plan.take(0, plan.num_examples)
    assert weights is None
    assert plan.mean_weight == 1.0
    return ids


@pytest.mark.parametrize(
    ("ratio", "num_examples", "size"),
    [
        (0.1, 1000, 100),
        (0.1, 1004, 100),
        (0.1, 1006, 101),
        (0.7, 10, 7),
        (0.29, 100, 29),  # 28.999... in floats
        (1.0, 17, 17),
    ],
)
def test_round_has_its_share_of_the_pool(ratio, num_examples, size):
    planner = start(RS2(ratio=ratio), num_examples)

    assert planner.num_examples_per_epoch == size
    assert len(ids_of(planner, 3)) == size


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.2, 0.25, 0.5])
def test_every_example_is_used_once_in_as_many_rounds_as_it_takes(ratio):
    planner = start(RS2(ratio=ratio), 1000)
    num_rounds = round(1 / ratio)
    for first in (0, num_rounds, 7 * num_rounds):
        used = [ids_of(planner, first + i) for i in range(num_rounds)]
        assert np.array_equal(np.sort(np.concatenate(used)), np.arange(1000))


def test_gap_between_two_uses_is_bounded():
    planner = start(RS2(ratio=0.3), 101)
    last = np.full(101, -1)
    for epoch in range(60):
        ids = ids_of(planner, epoch)
        # At most a whole cycle, but for an example, and a whole one: 202 of 30 each.
        assert (epoch - last[ids] <= 7).all()
        last[ids] = epoch


def test_whole_pool_is_another_permutation_in_each_round():
    planner = start(RS2(ratio=1.0), 50)
    orders = {tuple(ids_of(planner, epoch).tolist()) for epoch in range(10)}

    assert len(orders) == 10
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_planning_a_far_round_of_a_huge_pool_takes_no_memory():
    plan = start(RS2(ratio=0.1), 10**12).plan(10**6)

    assert len(np.unique(plan.take(10**11 - 256, 10**11)[0])) == 256


@given(
    labels=st.lists(st.integers(0, 4), min_size=4, max_size=200),
    ratio=st.sampled_from([0.1, 0.3, 0.5, 0.77, 1.0]),
    replace=st.booleans(),
)
def test_stratified_round_has_its_share_of_each_class(labels, ratio, replace):
    labels = np.array(labels)
    sampler = RS2(ratio=ratio, stratify_by="label", replace=replace)
    planner = start(sampler, len(labels), label=labels)
    _, sizes = np.unique(labels, return_counts=True)
    for epoch in range(4):
        ids = ids_of(planner, epoch)
        _, counts = np.unique(labels[ids], return_counts=True)

        assert len(np.unique(ids)) == len(ids) == planner.num_examples_per_epoch
        for count, size in zip(counts, sizes, strict=True):
            assert count == max(1, round(size * round(ratio * 100) / 100)) or (
                # Halves are rounded to even, exactly.
                size * round(ratio * 100) % 100 == 50
                and abs(count - size * ratio) <= 0.5
            )


def test_stratified_rounds_use_all_examples_of_a_class_equally_often():
    labels = np.arange(500) % 7
    planner = start(RS2(ratio=0.3, stratify_by="label"), 500, label=labels)
    uses = np.zeros(500)
    for epoch in range(25):
        uses[ids_of(planner, epoch)] += 1
        for label in range(7):
            assert np.ptp(uses[labels == label]) <= 1


def test_classes_may_be_strings_and_come_mixed():
    labels = np.array(["cat", "dog"])[(np.arange(1000) >= 500).astype(int)]
    planner = start(RS2(ratio=0.2, stratify_by="kind"), 1000, kind=labels)
    ids = ids_of(planner, 0)

    assert RS2(ratio=0.2, stratify_by="kind").columns == {"kind"}
    assert (labels[ids] == "cat").sum() == 100
    assert 30 < (labels[ids[:100]] == "cat").sum() < 70


def test_classes_have_rounds_of_their_own():
    planner = start(RS2(ratio=0.5, stratify_by="label"), 200, label=np.arange(200) % 2)
    ids = np.sort(ids_of(planner, 0))
    even, odd = ids[ids % 2 == 0] // 2, ids[ids % 2 == 1] // 2

    assert 30 < len(np.intersect1d(even, odd)) + 5 < 45 or not np.array_equal(even, odd)
    assert not np.array_equal(even, odd)


def test_class_too_small_for_its_share_still_has_one_example():
    labels = np.array([0] * 97 + [1] * 3)
    planner = start(RS2(ratio=0.1, stratify_by="label"), 100, label=labels)

    assert planner.num_examples_per_epoch == 10 + 1
    assert (labels[ids_of(planner, 0)] == 1).sum() == 1


def test_reported_losses_change_nothing():
    for sampler in (RS2(ratio=0.5), RS2(ratio=0.5, stratify_by="label")):
        planner = start(sampler, 10, label=np.zeros(10))
        before = ids_of(planner, 1)
        planner.observe(np.arange(10), np.arange(10, dtype=np.float32))

        assert np.array_equal(ids_of(planner, 1), before)


def test_order_is_of_the_seed():
    def first(seed):
        return ids_of(start(RS2(ratio=0.5), 1000, seed=seed), 0)

    assert np.array_equal(first(1), Permutation(1000, 1, 0).at(np.arange(500)))
    assert not np.array_equal(first(1), first(2))


@pytest.mark.parametrize("ratio", [0.0, -0.1, 2.0, float("nan")])
def test_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"ratio: in \(0, 1\]; got {ratio:g}"):
        RS2(ratio=ratio)


def test_round_smaller_than_a_super_batch_is_refused():
    message = (
        r"super_batch_size: in \[1, 30\], as with ratio = 0.3 a round has 30 of the "
        r"pool's 101 examples; got 31$"
    )
    with pytest.raises(ConfigError, match=message):
        start(RS2(ratio=0.3), 101, size=31)
    with pytest.raises(ConfigError, match=r"has 0 of the pool's 3"):
        start(RS2(ratio=0.1), 3)


def test_missing_column_is_refused():
    message = r"stratify_by: .* shape \(10,\); column 'label' is missing"
    with pytest.raises(ConfigError, match=message):
        start(RS2(ratio=0.3, stratify_by="label"), 10, other=np.zeros(10))


@pytest.mark.parametrize("shape", [(9,), (10, 2)])
def test_column_of_another_shape_is_refused(shape):
    with pytest.raises(ConfigError, match=r"'label' has shape \("):
        start(RS2(ratio=0.3, stratify_by="label"), 10, label=np.zeros(shape))
