"""What every sampler promises."""

import inspect

import numpy as np
import pytest

from curator.samplers import SAMPLERS, Sampler


@pytest.fixture(params=sorted(SAMPLERS))
def sampler(request):
    arguments = {"num_examples": 50, "super_batch_size": 8, "seed": 3}
    made = SAMPLERS[request.param](**arguments)
    assert set(inspect.signature(type(made)).parameters) >= set(arguments)
    return made


def test_sampler_fits_the_protocol(sampler):
    assert isinstance(sampler, Sampler)
    assert sampler.num_steps_per_epoch >= 1


def test_candidates_are_distinct_ids_of_the_pool(sampler):
    for step in range(3 * sampler.num_steps_per_epoch):
        batch = sampler.super_batch(step)

        assert batch.step == step
        assert batch.epoch == step // sampler.num_steps_per_epoch
        assert batch.ids.dtype == np.int64
        assert len(np.unique(batch.ids)) == len(batch.ids) == 8
        assert set(batch.ids.tolist()) <= set(range(50))


def test_same_step_gives_the_same_candidates(sampler):
    later = sampler.super_batch(9).ids
    sampler.super_batch(2)

    assert np.array_equal(sampler.super_batch(9).ids, later)


def test_configuration_is_the_identity(sampler):
    again = type(sampler)(num_examples=50, super_batch_size=8, seed=3)

    assert sampler == again
    assert "num_examples=50" in repr(sampler)
