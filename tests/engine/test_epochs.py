from pathlib import Path

import numpy as np
import pytest
from odd_samplers import Listed, Worst

from curator.config import Weighting
from curator.engine._epochs import Epochs
from curator.engine._plan_states import PlanStates
from curator.errors import ConfigError, SessionError
from curator.ledger import Ledger, Report, StepRecord
from curator.samplers import Run, Uniform


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


def epochs_of(
    ledger,
    sampler=None,
    *,
    num_steps=None,
    max_ahead=0,
    weighting: Weighting = "sum",
    folder=None,
):
    run = Run(num_examples=10, super_batch_size=3, seed=4, num_epochs=3)
    return Epochs(
        sampler or Worst(),
        run,
        ledger,
        num_steps=num_steps,
        max_ahead=max_ahead,
        weighting=weighting,
        states=PlanStates(folder or Path("nowhere")),
    )


def train(ledger, epochs, step, loss=lambda ids: ids.astype(np.float32)):
    """Defines a step and reports it."""
    batch = epochs.super_batch(step)
    ledger.append(
        StepRecord(step, batch.epoch, batch.ids, np.ones(len(batch.ids), np.float32))
    )
    losses = None if loss is None else loss(batch.ids)
    ledger.add_report(Report(step, 0, len(batch.ids), losses), next_step=step + 1)
    return batch


def test_fixed_epochs_are_cut_into_whole_steps_and_known_at_any_step(ledger):
    epochs = epochs_of(ledger, Uniform())

    batch = epochs.super_batch(7)

    assert (batch.step, batch.epoch) == (7, 2)
    assert epochs.epoch(7) == (6, 3)
    assert epochs.num_steps == 9
    assert epochs.awaited(10**9) is None
    assert not epochs.depends_on_losses
    again = epochs_of(ledger, Uniform()).super_batch(7)
    assert batch.ids.tolist() == again.ids.tolist()


def test_what_ends_first_ends_the_session(ledger):
    assert epochs_of(ledger, Uniform(), num_steps=4).num_steps == 4
    assert epochs_of(ledger, Uniform(), num_steps=400).num_steps == 9


def test_plan_waits_for_the_losses_of_the_epoch_before_it(ledger):
    epochs = epochs_of(ledger)
    for step in range(3):
        assert epochs.awaited(step) is None
        epochs.super_batch(step)

    assert epochs.awaited(3) == 2
    with pytest.raises(SessionError, match=r"step 3 depend on the losses of step 2"):
        epochs.super_batch(3)
    for step in range(3):
        train(ledger, epochs, step)
    batch = epochs.super_batch(3)

    # Ids are their losses: the worst known half, weighted.
    assert batch.ids.tolist() == [8, 7, 6]
    assert batch.weights.tolist() == [2.0, 2.0, 2.0]
    assert batch.epoch == 1


def test_losses_count_as_of_max_ahead_and_not_earlier(ledger):
    epochs = epochs_of(ledger, max_ahead=1)
    epochs.super_batch(0)
    for step in range(3):  # the third report has arrived, and does not count yet
        train(ledger, epochs, step)

    assert epochs.awaited(3) == 1
    assert epochs.super_batch(3).ids.tolist() == [5, 4, 3]


def test_steps_without_losses_teach_nothing_and_block_nothing(ledger):
    epochs = epochs_of(ledger)
    for step in range(3):
        train(ledger, epochs, step, loss=None)

    assert sorted(epochs.super_batch(3).ids) == [0, 1, 2]


def test_sessions_end_is_known_once_the_last_epoch_is_planned(ledger):
    epochs = epochs_of(ledger)
    ends = []
    for step in range(5):
        train(ledger, epochs, step)
        ends.append(epochs.num_steps)

    # Epochs of 3, 1 and 1 steps: half of 10, cut into whole super-batches of 3.
    assert ends == [None, None, None, None, 5]
    assert epochs.epoch(4) == (4, 1)


def test_mean_weighting_divides_by_the_mean_weight(ledger):
    epochs = epochs_of(ledger, weighting="mean")
    for step in range(3):
        train(ledger, epochs, step)

    assert epochs.super_batch(3).weights.tolist() == [1.0, 1.0, 1.0]


def test_epochs_opened_again_continue_with_the_same_plans(ledger):
    epochs = epochs_of(ledger)
    batches = [train(ledger, epochs, step) for step in range(5)]

    again = epochs_of(ledger)

    for batch in reversed(batches):
        assert again.super_batch(batch.step).ids.tolist() == batch.ids.tolist()
        assert again.epoch(batch.step) == epochs.epoch(batch.step)


def test_an_earlier_epoch_is_planned_again_without_harm(ledger):
    epochs = epochs_of(ledger)
    batches = [train(ledger, epochs, step) for step in range(4)]

    assert epochs.super_batch(1).ids.tolist() == batches[1].ids.tolist()
    assert epochs.super_batch(3).ids.tolist() == batches[3].ids.tolist()
    assert epochs.awaited(4) == 3


class Given:
    """A sampler that plans what it is given, the same in each epoch."""

    columns = frozenset()
    num_examples_per_epoch = None

    def __init__(self, ids, *, fixed=False):
        self._ids = np.array(ids, np.int64)
        if fixed:
            self.num_examples_per_epoch = len(ids)

    def start(self, _):
        return self

    def plan(self, _):
        return Listed(self._ids)

    def __repr__(self):
        return "Given()"


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("ids", [[], [1, 2]])
def test_an_epoch_that_no_step_fits_into_is_an_error(ledger, ids, fixed):
    message = rf"Given\(\) planned {len(ids)} examples for epoch 0: fewer than a .* 3$"
    with pytest.raises(ConfigError, match=message):
        epochs_of(ledger, Given(ids, fixed=fixed)).super_batch(0)


@pytest.mark.parametrize("ids", [[0, 1, -1], [0, 1, 10]])
def test_ids_that_are_not_of_the_pool_are_an_error(ledger, ids):
    with pytest.raises(ConfigError, match=r"Given\(\) gave 3 ids from .* from 0 to 9"):
        epochs_of(ledger, Given(ids)).super_batch(0)
