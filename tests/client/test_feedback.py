"""What reports do to a session, in one process and over gRPC."""

import dataclasses

import numpy as np
import pytest
import worlds
from odd_samplers import Diary, Highest, Worst
from worlds import UNIFORM, served

import curator
from curator.errors import FeedbackError, StepNotReportedError
from curator.ledger import Ledger
from curator.policies import POLICIES
from curator.samplers import SAMPLERS

WORST = dataclasses.replace(UNIFORM, sampler=Worst(), num_epochs=2)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "worst", Worst)
    for policy in (Diary, Highest):
        monkeypatch.setitem(POLICIES, policy.name, policy)


@pytest.fixture(params=["local", "grpc"])
def kind(request):
    return request.param


def losses_of(batch):
    """A loss that says which example it is of."""
    return batch.ids.astype(np.float64) + 0.5


def test_losses_that_are_not_finite_are_set_aside_counted_and_logged(
    tmp_path, kind, caplog
):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        batches = session.batches()
        batch = next(batches)
        losses = losses_of(batch)
        losses[[2, 5]] = np.nan, np.inf
        session.report(batch, loss=losses)
        session.report(batch, loss=losses)  # again: counted once

        info = session.describe()

    assert info.cost["num_quarantined_losses"] == 2
    assert info.next_step == 1
    assert "2 of 8 losses are not finite" in caplog.text


def test_a_loss_that_was_repeated_for_each_example_is_refused(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        batches = session.batches()
        first, second, third = next(batches), next(batches), next(batches)
        session.report(first, loss=np.full(8, 2.3025851))  # a head that starts at zero
        with pytest.raises(FeedbackError, match=r"step 1: all 8 losses are 0\.7.*mean"):
            session.report(second, loss=np.full(8, 0.7))
        assert session.describe().next_step == 1
        session.report(second, loss=np.zeros(8))  # a hinge, say
        session.report(third, loss=losses_of(third))

        assert session.describe().next_step == 3


@pytest.mark.parametrize("loss", [np.inf, -np.inf, np.nan, 1e300])
def test_losses_none_of_which_is_finite_are_set_aside(tmp_path, kind, loss):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        for batch, _ in zip(session.batches(), range(2), strict=False):
            session.report(batch, loss=np.full(8, loss))
        info = session.describe()

    assert info.cost["num_quarantined_losses"] == 16
    assert info.next_step == 2


def test_losses_may_be_a_list_of_tensors(tmp_path, kind):
    torch = pytest.importorskip("torch")
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        losses = torch.arange(8.0, requires_grad=True)
        session.report(next(session.batches()), loss=list(losses * 2))

        assert session.describe().next_step == 1


def test_epoch_is_planned_from_the_losses_of_the_one_before(tmp_path, kind):
    with served(worlds.config(tmp_path, s=WORST), kind=kind) as service:
        session = service.open("s")
        assert session.info.depends_on_losses
        assert session.info.num_steps is None
        seen = []
        for batch in session.batches():
            seen.append(batch)
            session.report(batch, loss=losses_of(batch))

        info = session.describe()

    # 200 examples in 25 steps, then the worse half in 12 steps of 8.
    assert [batch.epoch for batch in seen] == [0] * 25 + [1] * 12
    assert {(b.epoch_first_step, b.epoch_num_steps) for b in seen} == {
        (0, 25),
        (25, 12),
    }
    second = [sorted(batch.ids.tolist()) for batch in seen[25:]]
    assert second == [list(range(192 - 8 * i, 200 - 8 * i)) for i in range(12)]
    assert {float(w) for b in seen[25:] for w in b.weights} == {2.0}
    assert {b.weighting for b in seen} == {"sum"}
    assert info.num_steps == 37


def test_plan_is_the_same_after_a_restart(tmp_path, kind):
    config = worlds.config(tmp_path, s=WORST)
    with served(config, kind=kind) as service:
        session = service.open("s")
        whole = []
        for batch in session.batches():
            whole.append(batch.ids.tolist())
            session.report(batch, loss=losses_of(batch))

    again = worlds.config(tmp_path / "b", s=WORST)
    parts = []
    while len(parts) < len(whole):
        with served(again, kind=kind) as service:
            session = service.open("s")
            for batch in session.batches():
                parts.append(batch.ids.tolist())
                session.report(batch, loss=losses_of(batch))
                if len(parts) % 9 == 0:
                    break

    assert parts == whole


def test_trainer_that_does_not_report_is_told_at_the_end_of_the_epoch(tmp_path, kind):
    with served(worlds.config(tmp_path, s=WORST), kind=kind) as service:
        batches = service.open("s").batches()
        for _ in range(25):
            next(batches)
        with pytest.raises(StepNotReportedError, match=r"step 25 starts an epoch"):
            next(batches)


def test_policy_sees_what_it_remembered_of_reported_steps(tmp_path, kind):
    spec = dataclasses.replace(
        UNIFORM, policy=Diary(), batch_size=2, super_batch_size=4, max_ahead=1
    )
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        ids = []
        for batch in session.batches():
            ids.append(batch.ids.tolist())
            session.report(batch)
            if batch.step == 9:
                break

    ledger = Ledger(tmp_path / "sessions" / "s" / "ledger.sqlite")
    for step in range(10):
        # As of the report of step - 2: five rows at most, of two per step.
        remembered = [id_ for batch in ids[: max(0, step - 1)] for id_ in batch][-5:]
        stats = ledger.step(step).stats
        assert stats["num_remembered"] == len(remembered)
        assert stats["num_oldest"] == (remembered[0] if remembered else -1)
    ledger.close()


def test_policy_that_remembers_waits_for_reports(tmp_path, kind):
    spec = dataclasses.replace(UNIFORM, policy=Diary())
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        batches = service.open("s").batches()
        next(batches)
        with pytest.raises(StepNotReportedError, match=r"step 1 is selected as of"):
            next(batches)


def test_policy_reads_columns_of_the_pool(tmp_path, kind):
    spec = dataclasses.replace(UNIFORM, policy=Highest(), super_batch_size=50)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        batch = next(service.open("s").batches())

    # The highest eight of fifty of 0 to 199, best first.
    assert batch["number"].tolist() == sorted(batch["number"].tolist(), reverse=True)
    assert batch["number"].min() > 100


def test_configuration_may_be_given_as_tables(tmp_path):
    tables = {
        "server": {"state_dir": str(tmp_path)},
        "pools": {"ids": {"format": "virtual", "num_examples": 100}},
    }
    spec = {"pool": "ids", "batch_size": 8, "sampler": "uniform", "num_epochs": 2}

    with curator.local(tables) as service:
        session = service.open("s", spec)
        assert session.info.num_steps == 24
        assert len(list(session.batches())) == 24
