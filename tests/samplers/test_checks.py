from fractions import Fraction

import pytest

from curator.errors import ConfigError
from curator.samplers import Run
from curator.samplers._checks import annealing_start, exact


def run(num_epochs=None):
    return Run(num_examples=10, super_batch_size=1, seed=0, num_epochs=num_epochs)


@pytest.mark.parametrize(
    ("share", "number"),
    [(0.1, (1, 10)), (0.7, (7, 10)), (0.125, (1, 8)), (1e-7, (1, 10**7)), (1, (1, 1))],
)
def test_shares_are_the_numbers_that_were_written(share, number):
    assert exact(float(share)) == Fraction(*number)


@pytest.mark.parametrize(
    ("anneal", "share"),
    [(0.125, (1, 8)), (0.1, (1, 10)), (0.3, (3, 10)), (0.9, (9, 10)), (1.0, (1, 1))],
)
def test_so_many_epochs_are_the_last_for_any_number_of_epochs(anneal, share):
    for num_epochs in range(1, 201):
        start = annealing_start(anneal, run(num_epochs))

        assert start is not None
        assert num_epochs - start == num_epochs * share[0] // share[1]


def test_floats_would_be_one_epoch_off():
    # (1 - 0.7) * 10 is 3.0000000000000004: its ceiling is 4.
    assert annealing_start(0.7, run(10)) == 3


def test_no_epoch_is_the_last_without_a_share():
    assert annealing_start(0.0, run()) is None
    assert annealing_start(0.0, run(10)) is None


def test_share_of_an_unknown_number_is_refused():
    message = r"the last 0.125 of the epochs .* set num_epochs, or anneal = 0.0"
    with pytest.raises(ConfigError, match=message):
        annealing_start(0.125, run())
