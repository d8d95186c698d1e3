import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.errors import ConfigError
from curator.samplers import Run, Uniform


def start(num_examples, super_batch_size=1, seed=0):
    run = Run(num_examples=num_examples, super_batch_size=super_batch_size, seed=seed)
    return Uniform().start(run)


@given(num_examples=st.integers(1, 300), epoch=st.integers(0, 1000))
def test_epoch_has_each_example_once(num_examples, epoch):
    planner = start(num_examples, seed=5)
    plan = planner.plan(epoch)
    ids, weights = plan.take(0, num_examples)

    assert np.array_equal(np.sort(ids), np.arange(num_examples))
    assert weights is None
    assert plan.mean_weight == 1.0
    assert planner.num_examples_per_epoch == plan.num_examples == num_examples


def test_far_epoch_of_a_huge_pool_is_found_at_once():
    ids, _ = start(10**12).plan(10**6).take(10**11, 10**11 + 256)

    assert len(np.unique(ids)) == 256
    assert ids.dtype == np.int64


def test_reported_losses_change_nothing():
    planner = start(10)
    before = planner.plan(1).take(0, 10)[0]
    planner.observe(np.arange(10), np.arange(10, dtype=np.float32))

    assert np.array_equal(planner.plan(1).take(0, 10)[0], before)


@pytest.mark.parametrize("size", [0, -1, 11])
def test_size_that_the_pool_cannot_give_is_refused(size):
    message = rf"super_batch_size: in \[1, 10\], as the pool has 10 .*; got {size}$"
    with pytest.raises(ConfigError, match=message):
        start(10, super_batch_size=size)
