"""A session that goes back to a step under a new name, and leaves the other alone."""

import contextlib
import copy
import dataclasses
import sqlite3
import threading

import numpy as np
import pytest
import towers
import worlds
from odd_samplers import Diary, Worst
from worlds import IDS_ONLY, JOINT, UNIFORM, assert_same_batches, served, train

from curator.errors import (
    LimitError,
    SessionError,
    SessionMismatchError,
    StepNotReportedError,
    UnknownSessionError,
)
from curator.ledger import Ledger
from curator.policies import POLICIES
from curator.samplers import SAMPLERS, InfoBatch


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "worst", Worst)
    monkeypatch.setitem(POLICIES, Diary.name, Diary)


@pytest.fixture(params=["grpc", "local"])
def kind(request):
    return request.param


def with_spec(spec, **changes):
    return dataclasses.replace(spec, **changes)


def ids_of(batches):
    return [(batch.step, batch.ids.tolist()) for batch in batches]


def totals(state, name, until=None):
    """Returns the sums of what the policy says of each step."""
    path = state / "sessions" / name / "ledger.sqlite"
    with contextlib.closing(Ledger(path, read_only=True)) as ledger:
        if until is None:
            return ledger.totals()
        steps = [step.stats for step in ledger.steps(0, until)]
        return {key: sum(stats[key] for stats in steps) for key in steps[0]}


REMEMBERING = with_spec(IDS_ONLY, policy=Diary(), super_batch_size=16)
FROM_LOSSES = with_spec(IDS_ONLY, sampler=Worst(), super_batch_size=8)


@pytest.mark.parametrize("step", [0, 4, 10])
def test_a_fork_goes_on_as_the_session_did(tmp_path, kind, step):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        trained = train(session, 10)

        fork = service.fork("s", "b", step=step)

        assert (fork.name, fork.info.next_step) == ("b", step)
        again = train(fork, 12 - step)
        assert_same_batches(again[: 10 - step], trained[step:])
        assert ids_of(train(session, 2)) == ids_of(again[-2:])
        assert service.names() == ["b", "s"]


def test_a_fork_is_still_there_after_a_restart(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM)
    with served(config, kind=kind) as service:
        train(service.open("s"), 6)
        train(service.fork("s", "b", step=3), 1)
    with served(config, kind=kind) as service:
        fork = service.open("b")

        assert fork.info.next_step == 4
        assert [batch.step for batch in train(fork, 2)] == [4, 5]


def test_what_is_reported_to_one_is_not_reported_to_the_other(tmp_path, kind):
    spec = with_spec(FROM_LOSSES, num_epochs=2)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        num_steps = session.info.num_steps_per_epoch
        train(session, num_steps - 1)
        fork = service.fork("s", "b", step=num_steps - 1)

        # The last step of the epoch, with other losses: the next is planned from them.
        for each, loss in ((session, 9.0), (fork, -9.0)):
            batch = next(each.batches())
            each.report(batch, loss=loss + np.linspace(0, 1, len(batch)))
        mine, forks = next(session.batches()), next(fork.batches())

        assert mine.step == forks.step == num_steps
        assert set(batch.ids.tolist()) <= set(mine.ids.tolist())
        assert not set(batch.ids.tolist()) & set(forks.ids.tolist())


def test_the_weights_that_score_the_next_step_come_along(tmp_path, kind):
    with served(worlds.config(tmp_path, s=JOINT), kind=kind) as service:
        session, model = service.open("s"), towers.build()
        train(session, 3, model=model)
        fork = service.fork("s", "b", step=3)
        theirs = copy.deepcopy(model)

        assert not fork.info.needs_initial_snapshot
        ours = train(session, 3, model=model)
        assert_same_batches(train(fork, 3, model=theirs), ours)


@pytest.mark.parametrize("max_ahead", [0, 2])
def test_weights_that_are_gone_are_published_again(tmp_path, kind, max_ahead):
    spec = with_spec(JOINT, max_ahead=max_ahead)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session, model = service.open("s"), towers.build()
        train(session, 3, model=model)
        checkpoint = copy.deepcopy(model)
        trained = train(session, 5, model=model)

        fork = service.fork("s", "b", step=3)

        assert fork.info.needs_initial_snapshot
        with pytest.raises(StepNotReportedError, match=r"call session.publish"):
            next(fork.batches())
        fork.publish(checkpoint)
        again = train(fork, 5, model=checkpoint)
        assert [batch.snapshot_step for batch in again][: max_ahead + 1] == [3] * (
            max_ahead + 1
        )
        if max_ahead == 0:  # as the weights were then; else they were older
            assert_same_batches(again, trained)


def test_a_fork_whose_weights_are_awaited_waits_for_them_after_a_restart(tmp_path):
    config = worlds.config(tmp_path, s=JOINT)
    with served(config) as service:
        model = towers.build()
        train(service.open("s"), 8, model=model)
        service.fork("s", "b", step=3)
    with served(config) as service:
        fork = service.open("b")
        assert fork.info.needs_initial_snapshot
        fork.publish(model)
        assert next(fork.batches()).snapshot_step == 3
    with served(config) as service:
        assert not service.open("b").info.needs_initial_snapshot


def test_what_the_policy_remembers_comes_along(tmp_path, kind):
    with served(worlds.config(tmp_path, s=REMEMBERING), kind=kind) as service:
        session = service.open("s")
        train(session, 6)
        fork = service.fork("s", "b", step=6)
        train(session, 3)
        train(fork, 3)

    mine, forks = totals(tmp_path, "s"), totals(tmp_path, "b")
    for name in ("num_remembered", "num_oldest"):
        assert forks[name] == mine[name]


@pytest.mark.parametrize("max_ahead", [0, 1, 3])
def test_a_policy_that_remembers_is_forked_at_its_newest_step(
    tmp_path, kind, max_ahead
):
    spec = with_spec(REMEMBERING, max_ahead=max_ahead)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        batches = session.batches()
        # Far more than it remembers, and every step after it that may be defined.
        for _ in range(12):
            session.report(next(batches), loss=np.zeros(8, np.float32))
        ahead = [next(batches) for _ in range(1 + max_ahead)]
        fork = service.fork("s", "b", step=12)

        assert_same_batches(train(fork, len(ahead)), ahead)

    stop = 12 + len(ahead)
    mine, forks = totals(tmp_path, "s", stop), totals(tmp_path, "b", stop)
    for name in ("num_remembered", "num_oldest"):
        assert forks[name] == mine[name]


def test_what_the_policy_remembered_and_is_gone_is_told_or_forgotten(tmp_path, kind):
    with served(worlds.config(tmp_path, s=REMEMBERING), kind=kind) as service:
        session = service.open("s")
        trained = train(session, 9)
        with pytest.raises(SessionError, match=r"remembered then is no longer"):
            service.fork("s", "b", step=3)
        assert service.names() == ["s"]

        fork = service.fork("s", "b", step=3, forget_memory=True)
        before = totals(tmp_path, "b")["num_remembered"]
        assert ids_of(train(fork, 1)) == ids_of(trained[3:4])
        train(fork, 1)
        fork.close()
    assert totals(tmp_path, "b", until=4)["num_remembered"] == before == 10
    assert totals(tmp_path, "b", until=5)["num_remembered"] == before + 5


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [Worst(), InfoBatch(prune_ratio=0.5)])
def test_epochs_that_are_planned_from_losses_are_planned_again(tmp_path, sampler):
    spec = with_spec(IDS_ONLY, sampler=sampler, super_batch_size=8, num_epochs=4)
    with served(worlds.config(tmp_path, s=spec), kind="local") as service:
        trained = train(service.open("s"), 290)

        for step in (30, 60, 125, 126, 160, 250):
            with service.fork("s", f"from-{step}", step=step) as fork:
                assert_same_batches(train(fork, 290 - step), trained[step:])


@pytest.mark.slow
def test_losses_that_are_gone_are_told(tmp_path):
    spec = with_spec(IDS_ONLY, sampler=InfoBatch(), super_batch_size=8, num_epochs=9)
    config = worlds.config(tmp_path, server={"keep_steps": 250}, s=spec)
    with served(config, kind="local") as service:
        session = service.open("s")
        starts = {batch.epoch: batch.epoch_first_step for batch in train(session, 600)}
        with sqlite3.connect(tmp_path / "sessions" / "s" / "ledger.sqlite") as db:
            first = int(db.execute("SELECT min(step) FROM steps").fetchone()[0])
        assert first > 0

        # More may be gone by now than was just before, but no more than was asked for.
        with pytest.raises(SessionError, match=r"steps before \d+ are no longer kept"):
            service.fork("s", "b", step=first - 1)
        # The plans of the last two epochs are kept beside the losses.
        of_no_plan = max(starts) - 2
        assert starts[of_no_plan] > 600 - 250
        with pytest.raises(SessionError, match=r"losses that its epoch was planned"):
            service.fork("s", "b", step=starts[of_no_plan] + 1)
        assert next(service.fork("s", "b", step=600).batches()).step == 600


def test_skipped_steps_before_it_stay_skipped_and_later_ones_do_not(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        whole = ids_of(train(service.open("s"), 2))
        session = service.open("s")
        session.skip(4)
        whole += ids_of(train(session, 2))

        fork = service.fork("s", "b", step=4)

        assert fork.describe().cost["num_skipped"] == 2
        assert ids_of(train(fork, 4))[2:] == whole[2:]
        assert session.describe().cost["num_skipped"] == 4
        state = fork.state_dict()
        fork.load_state_dict({**state, "step": 0})
        assert [b.step for b, _ in zip(fork.batches(), "1234", strict=False)] == [
            *(0, 1, 4, 5)
        ]


def test_a_fork_has_cost_what_the_steps_before_it_did(tmp_path, kind):
    with served(worlds.config(tmp_path, s=JOINT), kind=kind) as service:
        session, model = service.open("s"), towers.build()
        session.publish(model)
        for batch, _ in zip(session.batches(), range(4), strict=False):
            losses = np.arange(8.0)
            losses[: batch.step] = np.nan
            session.report(batch, loss=losses)
        before = service.fork("s", "b", step=2).describe().cost
        counts = {k: v for k, v in before.items() if k.startswith("num_")}

    assert counts["num_quarantined_losses"] == 1
    # The fork defines its own next steps at once; with those, of which there are some.
    with contextlib.closing(
        Ledger(tmp_path / "sessions" / "b" / "ledger.sqlite", read_only=True)
    ) as ledger:
        scored = ledger.totals()["num_learner_scored"]
        assert scored == 24 * ledger.num_defined()
    assert counts["num_late"] == 0


def test_all_ranks_open_the_same_fork(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        train(service.open("s"), 5)
        forks, ready = {}, threading.Barrier(2)

        def open_rank(rank):
            ready.wait()
            forks[rank] = service.fork("s", "b", step=2, rank=rank, world_size=2)

        threads = [threading.Thread(target=open_rank, args=[rank]) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        batches = [next(forks[rank].batches()) for rank in (0, 1)]

        assert [len(batch) for batch in batches] == [4, 4]
        assert batches[0].step == batches[1].step == 2
        assert list(tmp_path.glob("forking/*")) == []


def test_a_fork_that_is_made_again_is_opened_where_it_is(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        train(service.open("s"), 5)
        train(service.fork("s", "b", step=2), 4)

        assert service.fork("s", "b", step=2).info.next_step == 6


def test_another_sessions_name_is_refused(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM, configured=UNIFORM)
    with served(config, kind=kind) as service:
        train(service.open("s"), 5)
        service.fork("s", "b", step=2)
        taken = r"there is another session '{}': fork under another name"
        for name, step in (("b", 3), ("s", 2), ("configured", 2)):
            with pytest.raises(SessionMismatchError, match=taken.format(name)):
                service.fork("s", name, step=step)
        train(service.open("configured"), 1)  # it is as it was


def test_wrong_calls_are_told_and_leave_nothing(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        train(session, 5)
        with pytest.raises(SessionError, match=r"at step 6: .* up to step 5, the"):
            service.fork("s", "b", step=6)
        with pytest.raises(
            ValueError, match=r"step: a whole number of at least 0; got -1"
        ):
            service.fork("s", "b", step=-1)
        with pytest.raises(UnknownSessionError, match=r"no session 'z'"):
            service.fork("z", "b", step=0)
        with pytest.raises(SessionError, match=r"rank must be a whole number in"):
            service.fork("s", "b", step=0, rank=2, world_size=2)
        state = session.state_dict()
        with pytest.raises(SessionMismatchError, match=r"session is 's', this sess"):
            service.fork("s", "c", step=5).load_state_dict(state)
    assert list((tmp_path / "forking").glob("*")) == []


def test_a_fork_counts_as_an_open_session(tmp_path):
    config = worlds.config(tmp_path, server={"max_sessions": 1}, s=UNIFORM)
    with served(config) as service:
        service.open("s")

        with pytest.raises(LimitError, match=r"cannot open session 'b': 1 are open"):
            service.fork("s", "b", step=0)


def test_what_a_crash_left_of_a_fork_is_cleared_away(tmp_path):
    left = tmp_path / "forking" / "tmpabc"
    left.mkdir(parents=True)
    (left / "ledger.sqlite").write_bytes(b"half of it")

    with served(worlds.config(tmp_path, s=UNIFORM)) as service:
        assert service.names() == ["s"]
    assert not left.exists()
