"""What every sampler promises, and every variant of one."""

import copy
import dataclasses

import numpy as np
import pytest

from curator.errors import ConfigError
from curator.samplers import (
    RS2,
    SAMPLERS,
    EpochPlan,
    EpochPlanner,
    InfoBatch,
    RePB,
    Run,
    Sampler,
    SeTa,
    Uniform,
)
from curator.testing import assert_sampler_contract

NUM_EXAMPLES = 301
BATCH = 16
NUM_EPOCHS = 12
LABELS = np.array(["cat", "dog", "cow"])[np.arange(NUM_EXAMPLES) % 7 // 3]

VARIANTS = [
    Uniform(),
    RS2(ratio=0.3),
    RS2(ratio=0.7),
    RS2(ratio=1.0),
    RS2(ratio=0.3, replace=True),
    RS2(ratio=0.3, stratify_by="label"),
    RS2(ratio=0.6, stratify_by="label", replace=True),
    InfoBatch(),
    InfoBatch(prune_ratio=0.9, anneal=0.0, min_inclusion=0.2),
    InfoBatch(prune_ratio=[0.75, 0.5], percentiles=[20.0, 85.0]),
    RePB(),
    RePB(prune_ratio=0.9, max_weight=3.0),
    SeTa(),
    SeTa(prune_ratio=0.1, num_groups=10, window=0.2),
]


@pytest.fixture(params=VARIANTS, ids=str)
def sampler(request):
    return request.param


def run(seed=3):
    return Run(
        num_examples=NUM_EXAMPLES,
        super_batch_size=BATCH,
        seed=seed,
        num_epochs=NUM_EPOCHS,
        columns={"label": LABELS},
    )


def loss_of(ids, epoch):
    """Losses that fall, some faster; one is NaN and one infinite."""
    losses = (ids * 7919 % 101 / 20 + 0.1) / (1 + epoch * (ids % 3))
    return np.where(ids == 5, np.nan, np.where(ids == 6, np.inf, losses)).astype("f4")


def batches(plan):
    """Yields ids and weights of each super-batch; what remains is not offered."""
    for start in range(0, plan.num_examples - BATCH + 1, BATCH):
        yield plan.take(start, start + BATCH)


def whole(plan):
    ids, weights = plan.take(0, plan.num_examples)
    return ids, np.ones(len(ids), np.float32) if weights is None else weights


def train(planner, num_epochs=NUM_EPOCHS):
    """Returns the plans of a whole run."""
    plans = []
    for epoch in range(num_epochs):
        plans.append(planner.plan(epoch))
        if planner.num_examples_per_epoch is None:
            for ids, _ in batches(plans[-1]):
                planner.observe(ids, loss_of(ids, epoch))
    return plans


def test_every_sampler_is_tried():
    assert {type(variant) for variant in VARIANTS} == set(SAMPLERS.values())
    assert {cls.name: cls for cls in SAMPLERS.values()} == SAMPLERS


def test_sampler_keeps_the_public_contract(sampler):
    assert_sampler_contract(sampler, {"label": LABELS})


def test_sampler_keeps_the_protocols(sampler):
    planner = sampler.start(run())

    assert isinstance(sampler, Sampler)
    assert isinstance(planner, EpochPlanner)
    assert isinstance(planner.plan(0), EpochPlan)
    assert sampler.columns <= {"label"}


def test_configuration_is_the_identity(sampler):
    again = type(sampler)(**copy.deepcopy(dataclasses.asdict(sampler)))

    assert again == sampler
    assert repr(again) == repr(sampler)


def test_epochs_have_distinct_ids_of_the_pool_and_room_for_a_super_batch(sampler):
    planner = sampler.start(run())
    for plan in train(planner):
        ids, weights = whole(plan)

        assert ids.dtype == np.int64
        assert weights.dtype == np.float32
        assert BATCH <= len(ids) == plan.num_examples <= NUM_EXAMPLES
        assert len(np.unique(ids)) == len(ids)
        assert 0 <= ids.min() <= ids.max() < NUM_EXAMPLES
        assert planner.num_examples_per_epoch in (None, len(ids))


def test_weights_are_at_least_one_and_have_the_mean_that_is_said(sampler):
    for plan in train(sampler.start(run())):
        _, weights = whole(plan)

        assert np.isfinite(weights).all()
        assert (weights >= 1).all()
        assert weights.mean(dtype=np.float64) == pytest.approx(
            plan.mean_weight, rel=1e-6
        )


def test_any_part_of_a_plan_is_that_part_whenever_it_is_asked_for(sampler):
    for plan in train(sampler.start(run()))[:3]:
        ids, weights = whole(plan)
        for start, stop in ((10, 16), (0, 3), (plan.num_examples, plan.num_examples)):
            part, part_weights = plan.take(start, stop)

            assert np.array_equal(part, ids[start:stop])
            if part_weights is not None:
                assert np.array_equal(part_weights, weights[start:stop])


def test_plans_are_kept_apart_from_later_losses_and_writes(sampler):
    planner = sampler.start(run())
    first = planner.plan(0)
    ids, _ = whole(first)
    before = ids.tolist()
    if planner.num_examples_per_epoch is None:
        planner.observe(ids, loss_of(ids, 0))
    later = planner.plan(1)
    planned = whole(later)[0].tolist()
    ids[:] = 0
    if planner.num_examples_per_epoch is None:
        planner.observe(np.arange(NUM_EXAMPLES), np.ones(NUM_EXAMPLES, np.float32))
        planner.plan(2)

    assert whole(first)[0].tolist() == before
    assert whole(later)[0].tolist() == planned


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 302)])
def test_positions_outside_of_the_plan_are_refused(sampler, start, stop):
    plan = sampler.start(run()).plan(0)

    with pytest.raises(ValueError, match=rf"in \[0, {plan.num_examples}\]"):
        plan.take(start, stop)


def test_calling_again_rebuilds_every_plan(sampler):
    for one, other in zip(
        train(sampler.start(run())), train(sampler.start(run())), strict=True
    ):
        assert np.array_equal(whole(one)[0], whole(other)[0])
        assert np.array_equal(whole(one)[1], whole(other)[1])


def test_seeds_and_epochs_give_other_orders(sampler):
    plans = train(sampler.start(run()), 2)
    other = sampler.start(run(seed=4)).plan(0)

    assert not np.array_equal(whole(plans[0])[0][:BATCH], whole(plans[1])[0][:BATCH])
    assert not np.array_equal(whole(plans[0])[0][:BATCH], whole(other)[0][:BATCH])


def test_global_generator_is_neither_read_nor_set(sampler):
    def then(seed):
        """Returns the plan made after a seed, and the global draw after the plan."""
        np.random.seed(seed)  # noqa: NPY002 - the one that must not be touched
        plans = train(sampler.start(run()))
        return whole(plans[-1])[0], np.random.random()  # noqa: NPY002

    (ids, drawn), (other_ids, _) = then(0), then(1)
    np.random.seed(0)  # noqa: NPY002

    assert np.array_equal(ids, other_ids)
    assert drawn == np.random.random()  # noqa: NPY002


def test_order_in_an_epoch_does_not_depend_on_the_id(sampler):
    ids = np.concatenate([whole(p)[0] for p in train(sampler.start(run()))[1:]])
    ranks = np.concatenate(
        [np.arange(p.num_examples) for p in train(sampler.start(run()))[1:]]
    )

    assert abs(np.corrcoef(ids, ranks)[0, 1]) * np.sqrt(len(ids)) < 5


def test_epochs_planned_from_losses_are_planned_in_order(sampler):
    planner = sampler.start(run())
    if planner.num_examples_per_epoch is not None:
        later = whole(planner.plan(7))[0]
        assert not np.array_equal(whole(planner.plan(2))[0], later)
        assert np.array_equal(whole(planner.plan(7))[0], later)
        return

    with pytest.raises(ValueError, match="the next is 0; got 1"):
        planner.plan(1)
    planner.plan(0)
    for epoch in (0, 2):
        with pytest.raises(ValueError, match=f"the next is 1; got {epoch}"):
            planner.plan(epoch)


def test_losses_that_are_not_finite_change_nothing(sampler):
    planner, silent = sampler.start(run()), sampler.start(run())
    for epoch in range(4):
        plan, other = planner.plan(epoch), silent.plan(epoch)
        assert np.array_equal(whole(plan)[0], whole(other)[0])
        for ids, _ in batches(plan):
            losses = loss_of(ids, epoch)
            finite = np.isfinite(losses)
            planner.observe(ids, losses)
            silent.observe(ids[finite], losses[finite])


@pytest.mark.parametrize("size", [0, NUM_EXAMPLES + 1])
def test_super_batch_that_an_epoch_may_not_fill_is_refused(sampler, size):
    with pytest.raises(ConfigError, match=rf"super_batch_size: in \[1, .*got {size}$"):
        sampler.start(dataclasses.replace(run(), super_batch_size=size))


@pytest.mark.parametrize("sampler", VARIANTS, ids=str)
def test_largest_super_batch_that_is_allowed_is_filled_by_any_losses(sampler):
    with pytest.raises(ConfigError) as error:
        sampler.start(dataclasses.replace(run(), super_batch_size=NUM_EXAMPLES + 1))
    largest = int(str(error.value).split("[1, ")[1].split("]")[0])
    for losses in (
        np.arange(NUM_EXAMPLES),
        np.arange(NUM_EXAMPLES) == 9,
        -1.0 * (np.arange(NUM_EXAMPLES) == 9),
        np.arange(NUM_EXAMPLES) // 100,
    ):
        planner = sampler.start(dataclasses.replace(run(), super_batch_size=largest))
        for epoch in range(6):
            assert planner.plan(epoch).num_examples >= largest
            planner.observe(np.arange(NUM_EXAMPLES), losses.astype(np.float32))
