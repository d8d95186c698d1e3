import numpy as np
import pytest

from curator.errors import ConfigError
from curator.samplers import RePB, Run


def start(sampler, num_examples, *, size=1, seed=0):
    run = Run(num_examples=num_examples, super_batch_size=size, seed=seed)
    return sampler.start(run)


def ids_of(plan):
    return np.sort(plan.take(0, plan.num_examples)[0])


def weight_of(plan, num_examples):
    ids, weights = plan.take(0, plan.num_examples)
    by_id = np.zeros(num_examples)
    by_id[ids] = 1 if weights is None else weights
    return by_id


def next_epoch(losses, batch=None, **fields):
    """Returns the ids of epoch 1 after these losses, in batches of a size."""
    losses = np.asarray(losses, np.float32)
    planner = start(RePB(**fields), len(losses))
    planner.plan(0)
    batch = batch or len(losses)
    for first in range(0, len(losses), batch):
        part = np.arange(first, min(first + batch, len(losses)))
        planner.observe(part, losses[part])
    return ids_of(planner.plan(1))


def test_first_epoch_has_every_example():
    plan = start(RePB(), 100).plan(0)

    assert plan.num_examples == 100
    assert plan.mean_weight == 1.0


def test_losses_at_or_above_the_mean_of_their_batch_stay_and_others_by_chance():
    kept = next_epoch(np.append(np.zeros(5000), np.full(5000, 2)), prune_ratio=0.7)

    assert np.array_equal(kept[kept >= 5000], np.arange(5000, 10_000))
    assert abs((kept < 5000).sum() - 1500) < 5 * np.sqrt(5000 * 0.3 * 0.7)


def test_only_losses_of_the_same_batch_are_compared():
    # Each batch has its own level; the mean of all would prune the first one whole.
    losses = np.repeat([0.0, 100.0], 1000) + np.tile([0.0, 1.0], 1000)
    kept = next_epoch(losses, batch=1000)

    assert set(range(1, 2000, 2)) <= set(kept.tolist())
    assert 200 < (kept[kept < 1000] % 2 == 0).sum() < 300
    assert 200 < (kept[kept >= 1000] % 2 == 0).sum() < 300


@pytest.mark.parametrize("value", [np.log(10), 3.0, 0.0])
def test_batch_of_equal_losses_stays(value):
    assert len(next_epoch(np.full(5000, value), batch=500)) == 5000


def test_examples_without_a_finite_loss_stay():
    losses = np.append(np.zeros(100), [np.nan, np.inf, -np.inf, 5])

    assert set(range(100, 104)) <= set(next_epoch(losses, prune_ratio=0.99).tolist())


def test_examples_that_were_not_reported_stay():
    planner = start(RePB(prune_ratio=0.9), 100)
    planner.plan(0)
    planner.observe(np.arange(10), np.arange(10, dtype=np.float32))

    assert set(range(10, 100)) <= set(ids_of(planner.plan(1)).tolist())


def test_nothing_is_pruned_at_a_ratio_of_zero():
    assert len(next_epoch(np.arange(100.0), prune_ratio=0.0)) == 100


def run_epochs(planner, num_epochs, num_examples, loss_of=lambda ids: ids):
    """Yields what is in each epoch, training in batches of 100."""
    for epoch in range(num_epochs):
        plan = planner.plan(epoch)
        ids, _ = plan.take(0, plan.num_examples)
        yield plan
        for first in range(0, len(ids), 100):
            part = ids[first : first + 100]
            planner.observe(part, loss_of(part).astype(np.float32))


def test_pool_does_not_collapse():
    planner = start(RePB(prune_ratio=0.7), 4000)
    present = np.array(
        [weight_of(plan, 4000) > 0 for plan in run_epochs(planner, 60, 4000)]
    )
    easy = present[5:, :1000].mean()

    # Pruned or out, an example is in the next epoch with probability 0.3.
    assert abs(easy - 0.3) < 5 * np.sqrt(0.3 * 0.7 / (55 * 1000))
    assert present[5:, 3900:].mean() > 0.95
    assert present[5:].any(0).all()
    assert present[-1].sum() > 0.4 * 4000


def test_weight_is_the_epochs_over_those_with_the_example():
    planner = start(RePB(prune_ratio=0.6, max_weight=4.0), 500)
    uses = np.zeros(500)
    clipped = 0
    for epoch, plan in enumerate(run_epochs(planner, 25, 500)):
        weights = weight_of(plan, 500)
        inside = weights > 0
        uses[inside] += 1
        expected = np.minimum((epoch + 1) / uses[inside], 4.0)
        clipped += (weights == 4).sum()

        assert np.array_equal(weights[inside], expected.astype(np.float32))
        assert plan.mean_weight == pytest.approx(expected.mean(), rel=1e-12)
    assert clipped


def test_weighted_sum_over_many_epochs_is_that_over_the_pool():
    planner = start(RePB(prune_ratio=0.5, max_weight=100.0), 2000)
    totals = np.array([weight_of(p, 2000) for p in run_epochs(planner, 120, 2000)])

    # Of easy and of hard examples alike, once the counts have settled.
    assert totals[60:, :500].mean() == pytest.approx(1, rel=0.03)
    assert totals[60:, 1500:].mean() == pytest.approx(1, rel=0.03)


def test_fate_of_an_example_does_not_depend_on_its_place_in_the_batch():
    losses = np.append(np.zeros(50), np.ones(50)).astype(np.float32)
    one, other = start(RePB(), 100), start(RePB(), 100)
    one.plan(0)
    other.plan(0)
    one.observe(np.arange(100), losses)
    other.observe(np.arange(100)[::-1], losses[::-1])

    assert np.array_equal(ids_of(one.plan(1)), ids_of(other.plan(1)))


def test_last_batch_decides_where_reports_run_behind():
    planner = start(RePB(prune_ratio=0.9), 200)
    planner.plan(0)
    planner.plan(1)
    ids = np.arange(200)
    planner.observe(ids, (ids >= 100).astype(np.float32))  # of epoch 0, late
    planner.observe(ids, (ids < 100).astype(np.float32))

    kept = ids_of(planner.plan(2))
    assert np.array_equal(kept[kept < 100], np.arange(100))
    assert (kept >= 100).sum() < 40


def test_late_report_of_what_is_out_changes_nothing():
    planner = start(RePB(prune_ratio=0.9), 400)
    planner.plan(0)
    planner.observe(np.arange(400), (np.arange(400) >= 350).astype(np.float32))
    out = np.setdiff1d(np.arange(400), ids_of(planner.plan(1)))
    planner.observe(out, np.arange(len(out), dtype=np.float32))

    assert len(np.intersect1d(out, ids_of(planner.plan(2)))) < 0.3 * len(out)


def test_epoch_smaller_than_a_super_batch_is_topped_up():
    planner = start(RePB(prune_ratio=0.99), 100, size=40)
    planner.plan(0)
    planner.observe(np.arange(100), (np.arange(100) == 99).astype(np.float32))
    plan = planner.plan(1)

    assert plan.num_examples == 40
    assert 99 in ids_of(plan)
    assert (weight_of(plan, 100)[ids_of(plan)] == 1).all()
    # They count as in the epoch: those that are out for two epochs weigh more later.
    planner.observe(ids_of(plan), np.ones(40, np.float32))
    assert set(ids_of(plan).tolist()) <= set(ids_of(planner.plan(2)).tolist())


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_ratio_out_of_range_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"prune_ratio: in \[0, 1\); got {ratio:g}"):
        RePB(prune_ratio=ratio)


@pytest.mark.parametrize("weight", [0.5, float("inf"), float("nan")])
def test_weight_out_of_range_is_refused(weight):
    with pytest.raises(ValueError, match=f"max_weight: at least 1, .* got {weight:g}"):
        RePB(max_weight=weight)


def test_super_batch_larger_than_the_pool_is_refused():
    with pytest.raises(ConfigError, match=r"in \[1, 10\], as the pool has 10 examples"):
        start(RePB(), 10, size=11)
