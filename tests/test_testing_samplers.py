"""The contract test fails for samplers that break the contract."""

import dataclasses

import numpy as np
import pytest
from odd_samplers import Listed, Worst

from curator.samplers import InfoBatch
from curator.testing import assert_sampler_contract


class Planner:
    """Plans all examples in an order of its own; the broken ones change one thing."""

    num_examples_per_epoch = None

    def __init__(self, run):
        self.run = run
        self.losses = np.zeros(run.num_examples)
        self.num_planned = 0

    def plan(self, epoch):
        self.num_planned += 1
        rng = np.random.default_rng([self.run.seed, epoch])
        return Listed(rng.permutation(self.run.num_examples))

    def observe(self, ids, losses):
        known = np.isfinite(losses)
        self.losses[ids[known]] = losses[known]


class RepeatsAnExample(Planner):
    def plan(self, epoch):
        ids = super().plan(epoch).ids
        ids[1] = ids[0]
        return Listed(ids)


class LeavesThePool(Planner):
    def plan(self, epoch):
        return Listed(super().plan(epoch).ids + 1)


class PlansTooFew(Planner):
    def plan(self, epoch):
        return Listed(super().plan(epoch).ids[:9])


class NarrowIds(Planner):
    def plan(self, epoch):
        return Listed(super().plan(epoch).ids.astype(np.int32))


class SaysAnotherSize(Planner):
    num_examples_per_epoch = 300


class SaysAnotherMean(Planner):
    def plan(self, epoch):
        return Heavier(super().plan(epoch).ids, weight=1.5)


class Heavier(Listed):
    def take(self, start, stop):
        ids = self.ids[start:stop].copy()
        return ids, np.full(len(ids), 2.0, np.float32)


class Lent(Listed):
    def take(self, start, stop):
        return self.ids[start:stop], None


class LendsItsMemory(Planner):
    def plan(self, epoch):
        return Lent(super().plan(epoch).ids)


class Relative(Listed):
    def take(self, start, stop):
        return np.roll(self.ids, start % 2)[start:stop].copy(), None


class StartsOver(Planner):
    def plan(self, epoch):
        return Relative(super().plan(epoch).ids)


class DrawsGlobally(Planner):
    def plan(self, epoch):
        ids = super().plan(epoch).ids
        np.random.shuffle(ids)  # noqa: NPY002
        return Listed(ids)


class MovesTheGlobalGenerator(Planner):
    def plan(self, epoch):
        np.random.random()  # noqa: NPY002
        return super().plan(epoch)


class CountsItsPlans(Planner):
    num_examples_per_epoch = 301

    def plan(self, epoch):
        rng = np.random.default_rng(self.num_planned)
        self.num_planned += 1
        return Listed(rng.permutation(self.run.num_examples))


class TakesAnyLoss(Planner):
    def observe(self, ids, losses):
        self.losses[ids] = np.nan_to_num(losses, nan=9.0, posinf=9.0)

    def plan(self, epoch):
        return Listed(np.argsort(-self.losses, kind="stable"))


class WritesToLosses(Planner):
    def observe(self, ids, losses):
        losses[np.isnan(losses)] = 0.0


class ForgetsItsState(Planner):
    def plan(self, epoch):
        return Listed(np.argsort(-self.losses, kind="stable"))

    def state(self):
        return {}

    def restore(self, epoch, state):
        pass


@dataclasses.dataclass(frozen=True)
class Given:
    """The sampler of a planner."""

    planner: type[Planner] = Planner
    columns: frozenset[str] = frozenset()

    def start(self, run):
        return self.planner(run)


@dataclasses.dataclass
class Liquid:
    """As Given, but that it may be changed."""

    planner: type[Planner] = Planner
    columns: frozenset[str] = frozenset()

    def start(self, run):
        return self.planner(run)


@dataclasses.dataclass(frozen=True, eq=False)
class Unequal(Given):
    """Equals itself only."""

    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


def test_samplers_that_keep_it_pass():
    for sampler in (Given(), Worst(), InfoBatch()):
        assert_sampler_contract(sampler)


@pytest.mark.parametrize(
    ("planner", "message"),
    [
        (RepeatsAnExample, "epoch 0: ids must be distinct"),
        (LeavesThePool, "ids must be of the pool, 0 to 300"),
        (PlansTooFew, "at least super_batch_size = 16; got 9"),
        (NarrowIds, r"ids of take\(0, 301\) must be 301 int64; got .* int32"),
        (SaysAnotherSize, "must have num_examples_per_epoch = 300; got 301"),
        (SaysAnotherMean, "must be the mean of its weights, 2.0; got 1.5"),
        (LendsItsMemory, "the plan of epoch 0 changed"),
        (StartsOver, "must be that part of"),
        (DrawsGlobally, "two equal runs were planned differently"),
        (MovesTheGlobalGenerator, "global generator was used"),
        (CountsItsPlans, "depends on which were made before it"),
        (TakesAnyLoss, "loss is not finite must be as one without a loss"),
        (ForgetsItsState, "restored before epoch 1 planned otherwise"),
    ],
)
def test_samplers_that_break_it_fail(planner, message):
    with pytest.raises(AssertionError, match=message):
        assert_sampler_contract(Given(planner))


def test_losses_are_not_the_planners_to_write_to():
    with pytest.raises(ValueError, match="read-only"):
        assert_sampler_contract(Given(WritesToLosses))


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Liquid(), "must be a frozen dataclass"),
        (Unequal(), "of the same fields must be equal"),
    ],
)
def test_the_configuration_is_all_that_a_sampler_is(sampler, message):
    with pytest.raises(AssertionError, match=message):
        assert_sampler_contract(sampler)


def test_what_is_asked_for_has_to_be_given():
    with pytest.raises(AssertionError, match=r"were not given: \['label'\]"):
        assert_sampler_contract(Given(columns=frozenset({"label"})))
    with pytest.raises(AssertionError, match="num_epochs must be at least 3; got 2"):
        assert_sampler_contract(Given(), num_epochs=2)
