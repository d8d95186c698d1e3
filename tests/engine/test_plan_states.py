"""A sampler that goes on from its kept state plans what it would have planned."""

import numpy as np
import pytest

from curator.engine._epochs import Epochs
from curator.engine._plan_states import PlanState, PlanStates
from curator.errors import StorageError
from curator.ledger import Ledger, Report, StepRecord
from curator.samplers import InfoBatch, RePB, ResumablePlanner, Run, SeTa

NUM_EXAMPLES, BATCH = 60, 5
SAMPLERS = [InfoBatch(), InfoBatch(anneal=0.0), RePB(), SeTa(num_groups=3)]


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


class Watched(Ledger):
    """A ledger that says which steps' losses were read."""

    def __init__(self, path):
        super().__init__(path)
        self.ranges = []

    def feedback(self, start, stop):
        self.ranges.append((start, stop))
        return super().feedback(start, stop)


def epochs_of(sampler, ledger, folder, max_ahead=0):
    run = Run(num_examples=NUM_EXAMPLES, super_batch_size=BATCH, seed=2, num_epochs=8)
    return Epochs(
        sampler,
        run,
        ledger,
        num_steps=None,
        max_ahead=max_ahead,
        weighting="sum",
        states=PlanStates(folder),
    )


def train(ledger, epochs, step):
    batch = epochs.super_batch(step)
    weights = np.ones(BATCH, np.float32) if batch.weights is None else batch.weights
    ledger.append(StepRecord(step, batch.epoch, batch.ids, weights))
    losses = np.random.default_rng([step, 1]).random(BATCH).astype(np.float32)
    ledger.add_report(Report(step, 0, BATCH, losses), next_step=step + 1)
    return batch


def told(batch):
    weights = None if batch.weights is None else batch.weights.tolist()
    return batch.step, batch.epoch, batch.ids.tolist(), weights


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("max_ahead", [0, 2])
def test_opened_again_at_any_step_the_rest_is_the_same(
    sampler, max_ahead, ledger, tmp_path
):
    whole = epochs_of(sampler, ledger, tmp_path / "whole", max_ahead)
    assert isinstance(whole._planner, ResumablePlanner)
    folder = tmp_path / "again"
    for step in range(50):
        expected = told(train(ledger, whole, step))
        # Opened before each step, as after a crash at each of them.
        watched = Watched(tmp_path / "ledger.sqlite")
        again = epochs_of(sampler, watched, folder, max_ahead)
        assert told(again.super_batch(step)) == expected
        first, num_steps = again.epoch(step)
        assert (first, num_steps) == whole.epoch(step)
        # What was observed two epochs ago is not read again.
        before = [s for s in whole._first if s <= step]
        assert min((r[0] for r in watched.ranges), default=step) >= max(
            0, (before[-3:] or [0])[0] - max_ahead
        )
        watched.close()


def test_an_epoch_of_the_past_is_planned_from_the_states_before_it(ledger, tmp_path):
    epochs = epochs_of(InfoBatch(), ledger, tmp_path / "plans")
    batches = [told(train(ledger, epochs, step)) for step in range(40)]
    files = sorted(path.name for path in (tmp_path / "plans").iterdir())

    past = [told(epochs.super_batch(step)) for step in range(40)]

    assert past == batches
    assert sorted(path.name for path in (tmp_path / "plans").iterdir()) == files
    assert len(files) == 2


def test_reports_are_needed_from_the_older_of_the_states_that_are_kept(
    ledger, tmp_path
):
    epochs = epochs_of(RePB(), ledger, tmp_path / "plans")
    assert epochs.needed_from() == 0
    for step in range(40):
        train(ledger, epochs, step)

    planned = [first for first in epochs._first[:-1] if first <= 39]
    assert epochs.needed_from() == planned[-2]


def test_a_state_of_a_ledger_that_has_lost_reports_is_not_used(tmp_path):
    states = PlanStates(tmp_path)
    for epoch, observed in ((1, 10), (2, 20)):
        first_steps = np.arange(epoch + 1)
        states.save(PlanState(first_steps, observed, {"a": np.ones(3)}))

    kept = states.newest(last_epoch=None, num_reported=19)

    assert kept is not None
    assert (kept.epoch, kept.num_observed) == (1, 10)
    assert states.newest(last_epoch=None, num_reported=9) is None


def test_a_state_of_an_earlier_epoch_replaces_those_after_it(tmp_path):
    states = PlanStates(tmp_path)
    for epoch in (4, 5, 2):
        states.save(PlanState(np.arange(epoch + 1), epoch, {}))

    assert [path.name for path in tmp_path.iterdir()] == ["00000002.safetensors"]


def test_a_damaged_state_says_what_to_delete(tmp_path):
    states = PlanStates(tmp_path)
    states.save(PlanState(np.arange(2), 3, {"a": np.ones(3)}))
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:-5])

    with pytest.raises(StorageError, match=r"is damaged .* delete it, and it is made"):
        states.newest(last_epoch=None, num_reported=5)
