import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curator.errors import ConfigError
from curator.samplers import Uniform


def offered(sampler, epoch):
    """Returns the ids of all super-batches of an epoch."""
    steps = range(sampler.num_steps_per_epoch)
    first = epoch * sampler.num_steps_per_epoch
    return [sampler.super_batch(first + step) for step in steps]


@given(num_examples=st.integers(1, 200), data=st.data())
def test_epoch_offers_each_example_once_but_for_the_remainder(num_examples, data):
    size = data.draw(st.integers(1, num_examples))
    sampler = Uniform(num_examples=num_examples, super_batch_size=size, seed=5)
    epoch = data.draw(st.integers(0, 1000))

    batches = offered(sampler, epoch)

    ids = np.concatenate([batch.ids for batch in batches])
    assert all(len(batch.ids) == size for batch in batches)
    assert len(np.unique(ids)) == len(ids) == num_examples - num_examples % size
    assert {batch.epoch for batch in batches} == {epoch}


def test_other_examples_are_left_over_in_each_epoch():
    sampler = Uniform(num_examples=100, super_batch_size=30, seed=0)
    left_over = set()
    for epoch in range(60):
        ids = np.concatenate([batch.ids for batch in offered(sampler, epoch)])
        left_over |= set(range(100)) - set(ids.tolist())

    assert left_over == set(range(100))


def test_step_numbers_the_batches_through_the_epochs():
    sampler = Uniform(num_examples=10, super_batch_size=4, seed=0)

    batches = [sampler.super_batch(step) for step in range(5)]

    assert [batch.step for batch in batches] == [0, 1, 2, 3, 4]
    assert [batch.epoch for batch in batches] == [0, 0, 1, 1, 2]


def test_step_gives_the_same_ids_whenever_it_is_asked():
    forwards = Uniform(num_examples=100_000, super_batch_size=64, seed=1)
    backwards = Uniform(num_examples=100_000, super_batch_size=64, seed=1)
    steps = [0, 1, 1561, 1562, 1563, 10**6]

    ids = [forwards.super_batch(step).ids.tolist() for step in steps]

    assert (
        ids == [backwards.super_batch(step).ids.tolist() for step in steps[::-1]][::-1]
    )


def test_far_step_of_a_huge_pool_is_found_at_once():
    batch = Uniform(num_examples=10**12, super_batch_size=256, seed=1).super_batch(
        10**10
    )

    assert batch.epoch == 2
    assert len(np.unique(batch.ids)) == 256
    assert batch.ids.dtype == np.int64


def test_seeds_and_epochs_give_other_orders():
    sampler = Uniform(num_examples=1000, super_batch_size=1000, seed=1)
    other = Uniform(num_examples=1000, super_batch_size=1000, seed=2)
    first = sampler.super_batch(0).ids

    assert not np.array_equal(first, sampler.super_batch(1).ids)
    assert not np.array_equal(first, other.super_batch(0).ids)


def test_batch_may_be_written_to():
    sampler = Uniform(num_examples=10, super_batch_size=10, seed=1)
    ids = sampler.super_batch(0).ids
    before = ids.tolist()
    ids[:] = 0

    assert sampler.super_batch(0).ids.tolist() == before


@pytest.mark.parametrize("size", [0, -1, 11])
def test_size_that_the_pool_cannot_give_is_refused(size):
    message = rf"in \[1, examples of the pool\]; got super_batch_size={size} for .* 10$"
    with pytest.raises(ConfigError, match=message):
        Uniform(num_examples=10, super_batch_size=size, seed=0)


def test_negative_step_is_refused():
    with pytest.raises(ValueError, match="step must be at least 0; got -1"):
        Uniform(num_examples=10, super_batch_size=5, seed=0).super_batch(-1)
