"""Passing over steps: which batches come then, and what is left of the skipped ones."""

import dataclasses

import numpy as np
import pytest
import towers
import worlds
from odd_samplers import Diary, Worst
from worlds import IDS_ONLY, JOINT, UNIFORM, served, train

from curator import PairEmbeddings
from curator.errors import (
    FeedbackError,
    RankStalledError,
    SessionError,
    SessionMismatchError,
)
from curator.policies import POLICIES
from curator.samplers import SAMPLERS


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "worst", Worst)
    monkeypatch.setitem(POLICIES, Diary.name, Diary)


@pytest.fixture(params=["grpc", "remote", "local"])
def kind(request):
    return request.param


def with_spec(spec, **changes):
    return dataclasses.replace(spec, **changes)


def remaining(session):
    return [(batch.step, batch.ids.tolist()) for batch in session.batches()]


def test_the_steps_after_a_skip_are_those_they_would_have_been(tmp_path, kind):
    spec = with_spec(UNIFORM, num_steps=40)
    with served(worlds.config(tmp_path / "a", s=spec), kind=kind) as service:
        whole = remaining(service.open("s"))
    with served(worlds.config(tmp_path / "b", s=spec), kind=kind) as service:
        session = service.open("s")
        seen = [batch.ids.tolist() for batch in train(session, 5)]
        skipped = session.skip(20)
        rest = remaining(session)

    assert skipped == range(5, 25)
    assert seen == [ids for _, ids in whole[:5]]
    assert rest == whole[25:]


def test_an_open_iterator_goes_on_after_the_skipped_steps(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        steps = []
        for batch in session.batches():
            steps.append(batch.step)
            session.ack(batch)
            if batch.step == 2:
                session.skip(4)
            if batch.step == 8:
                break

        assert steps == [0, 1, 2, 7, 8]
        assert session.state_dict()["step"] == 9
        assert service.describe("s").next_step == 9
        assert service.describe("s").cost["num_skipped"] == 4


def test_a_batch_in_hand_that_is_not_reported_is_skipped_too(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        train(session, 2)
        batches = session.batches()
        spike = next(batches)

        skipped = session.skip(3)

        assert skipped == range(2, 5)
        assert next(batches).step == 5
        with pytest.raises(FeedbackError, match=r"step 2 was skipped"):
            session.report(spike)


def test_going_back_before_a_spike_and_passing_over_it_is_two_calls(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        train(session, 3)
        state = session.state_dict()
        train(session, 4)

        session.load_state_dict(state)
        skipped = session.skip(6)
        batch = next(session.batches())

        assert skipped == range(3, 9)
        assert batch.step == 9
        # Steps 3 to 6 were trained on, and that stays on record.
        assert service.describe("s").cost["num_skipped"] == 2


def test_every_rank_skips_and_the_second_one_changes_nothing(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        ranks = [service.open("s", rank=r, world_size=2) for r in range(2)]
        for session in ranks:
            train(session, 2)

        for session in ranks:
            assert session.skip(3) == range(2, 5)
        slices = [next(session.batches()) for session in ranks]

        assert [batch.step for batch in slices] == [5, 5]
        assert service.describe("s").cost["num_skipped"] == 3


def test_a_skip_survives_a_restart_and_is_not_sent_to_a_trainer_that_goes_back(
    tmp_path, kind
):
    config = worlds.config(tmp_path, s=UNIFORM)
    with served(config, kind=kind) as service:
        session = service.open("s")
        train(session, 2)
        state = session.state_dict()
        session.skip(5)
        train(session, 1)

    with served(config, kind=kind) as service:
        session = service.open("s")
        assert session.state_dict()["step"] == 8
        session.load_state_dict(state)
        assert [batch.step for batch in train(session, 3)] == [7, 8, 9]
        assert session.state_dict()["step"] == 10


@pytest.mark.parametrize("policy", [Diary()])
@pytest.mark.parametrize("ahead", [0, 3])
def test_a_policy_remembers_nothing_of_skipped_steps_however_far_it_was_ahead(
    tmp_path, kind, policy, ahead
):
    """Whether a step was defined before it was skipped is timing, and must not show."""
    spec = with_spec(
        IDS_ONLY, super_batch_size=16, policy=policy, max_ahead=ahead, num_steps=30
    )

    def run(folder, *, look_ahead):
        with served(worlds.config(folder, s=spec), kind=kind) as service:
            session = service.open("s")
            train(session, 6)
            if look_ahead:  # all that may be defined now is
                batches = session.batches(prefetch=1)
                for _ in range(1 + ahead):
                    next(batches)
            session.skip(8)
            return [
                (batch.step, batch.ids.tolist()) for batch in train(session, 16)
            ], service.describe("s").cost

    behind, cost = run(tmp_path / "behind", look_ahead=False)
    before, cost_before = run(tmp_path / "before", look_ahead=True)

    assert behind == before
    assert behind[0][0] == 14
    assert cost["num_skipped"] == cost_before["num_skipped"] == 8


def test_epochs_planned_from_losses_do_without_those_of_skipped_steps(tmp_path, kind):
    spec = with_spec(UNIFORM, sampler=Worst(), super_batch_size=8, num_epochs=2)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        train(session, 10)
        session.skip(15)  # to the end of the first epoch
        batch = next(session.batches())

    assert batch.epoch == 1
    assert set(batch.ids) <= set(range(80))


def test_scored_steps_that_are_skipped_are_not_scored(tmp_path, kind):
    model = towers.build(seed=5)
    with served(worlds.config(tmp_path, s=JOINT), kind=kind) as service:
        session = service.open("s")
        train(session, 2, model=model)
        session.skip(1000)
        batches = train(session, 2)
        cost = service.describe("s").cost

    assert [batch.step for batch in batches] == [1002, 1003]
    assert [batch.snapshot_step for batch in batches] == [2, 2]
    assert cost["num_learner_scored"] < 10 * 24


def test_a_trainer_with_features_of_its_own_skips_as_well(tmp_path, kind):
    spec = with_spec(JOINT, features="trainer", reference=None, learner=None)

    def embeddings(size):
        rows = np.eye(size, 32, dtype=np.float32)
        return PairEmbeddings(rows, rows, 10.0, -10.0)

    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        steps = []
        for candidates in session.super_batches():
            batch = session.select(
                candidates, reference=embeddings(24), learner=embeddings(24)
            )
            session.report(batch)
            steps.append(batch.step)
            if batch.step == 1:
                session.skip(30)
            if batch.step > 31:
                break

    assert steps == [0, 1, 32]


def test_a_skip_past_the_end_is_refused_and_changes_nothing(tmp_path, kind):
    spec = with_spec(UNIFORM, num_steps=10)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        train(session, 2)

        with pytest.raises(SessionError, match=r"10 steps long; got step 11"):
            session.skip(10)
        with pytest.raises(SessionError, match=r"at most 1000000 steps long"):
            service.open("endless", UNIFORM).skip(10**7)
        with pytest.raises(ValueError, match=r"at least 1; got 0"):
            session.skip(0)

        assert session.skip(8) == range(2, 10)
        assert remaining(session) == []


def test_a_rank_that_does_not_report_is_named_to_the_others(tmp_path):
    """And once it does, the others go on, with the same objects."""
    spec = with_spec(IDS_ONLY, super_batch_size=16, policy=Diary(), num_steps=9)
    config = worlds.config(tmp_path, server={"stalled_rank_seconds": 0.05}, s=spec)
    with served(config) as service:
        ranks = [service.open("s", rank=r, world_size=4) for r in range(4)]
        for _ in range(3):
            for session in ranks:
                train(session, 1)
        stalled = ranks[2]
        for session in ranks:
            if session is not stalled:
                train(session, 1)

        with pytest.raises(
            RankStalledError,
            match=r"step 4 of session 's' waits for the report of step 3: rank 2 of 4 "
            r"has not reported it for 0.05 s. Restart what stalled",
        ):
            next(ranks[0].batches())

        rejoined = service.open("s", rank=2, world_size=4)
        assert [batch.step for batch in train(rejoined, 1)] == [3]
        assert next(ranks[0].batches()).step == 4


def test_tensor_parallel_peers_share_a_slice(tmp_path, kind):
    """Two clients of one rank: the same rows; the first report counts."""
    spec = with_spec(IDS_ONLY, super_batch_size=16, policy=Diary(), num_steps=9)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        peers = [service.open("s", rank=0, world_size=1) for _ in range(2)]
        iterators = [session.batches() for session in peers]
        for _ in range(9):
            batches = [next(iterator) for iterator in iterators]
            assert batches[0].ids.tolist() == batches[1].ids.tolist()
            for session, batch in zip(peers, batches, strict=True):
                session.ack(batch)

        assert service.describe("s").next_step == 9


def test_a_trainer_that_is_ahead_of_its_session_is_told_why(tmp_path, kind):
    """As where the service was restored from an older checkpoint than the trainer."""
    with served(worlds.config(tmp_path / "new", s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        train(session, 40)
        state = session.state_dict()
    with served(worlds.config(tmp_path / "old", s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        train(session, 1)

        with pytest.raises(
            SessionMismatchError, match=r"the state's next step is 40, and session 's' "
        ):
            session.load_state_dict(state)
        assert session.state_dict()["step"] == 1


@pytest.mark.parametrize("num_ahead", [1, 2])
def test_the_first_batch_is_skipped_too(tmp_path, kind, num_ahead):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        session = service.open("s")
        batches = session.batches()
        for _ in range(num_ahead):
            next(batches)

        assert session.skip(5) == range(5)
        assert next(batches).step == 5
        assert service.describe("s").next_step == 5
