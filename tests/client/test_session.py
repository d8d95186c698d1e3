"""A trainer's view of a session; the same over gRPC and in one process."""

import dataclasses

import grpc
import numpy as np
import pytest
import towers
import worlds
from worlds import IDS_ONLY, JOINT, TOPK, UNIFORM, served, train

from curator import Config, ModelSpec, PairEmbeddings
from curator.client._batch import check_format
from curator.errors import (
    ConfigError,
    FeatureError,
    FeedbackError,
    PoolChangedError,
    ScoringError,
    SessionError,
    SessionMismatchError,
    SnapshotError,
    StepNotReportedError,
    UnknownSessionError,
)
from curator.pools import MemoryPool


@pytest.fixture(params=["grpc", "remote", "local"])
def kind(request):
    return request.param


def with_spec(spec, **changes):
    return dataclasses.replace(spec, **changes)


# --- batches ----------------------------------------------------------------------


def test_an_epoch_of_uniform_batches_offers_each_example_once(tmp_path, kind):
    config = worlds.config(tmp_path, s=with_spec(UNIFORM, num_steps=50))
    table = worlds.pairs()

    with served(config, kind=kind) as service:
        batches = list(service.open("s").batches())

    assert [batch.step for batch in batches] == list(range(50))
    assert [batch.epoch for batch in batches] == [0] * 25 + [1] * 25
    for epoch in (batches[:25], batches[25:]):
        seen = np.concatenate([batch.ids for batch in epoch])
        assert sorted(seen) == list(range(200))
    assert not np.array_equal(batches[0].ids, batches[25].ids)
    for batch in batches:
        assert len(batch) == 8
        np.testing.assert_array_equal(batch.weights, np.ones(8, np.float32))
        assert batch["number"].tolist() == batch.ids.tolist()
        assert batch["caption"] == [f"pair {i}" for i in batch.ids]
        expected = table["image"].combine_chunks().to_numpy_ndarray()[batch.ids]
        np.testing.assert_array_equal(batch["image"], expected)


def test_batches_over_grpc_are_those_of_one_process(tmp_path):
    streams = []
    for kind in ("grpc", "remote", "local"):
        config = worlds.config(tmp_path / kind, s=with_spec(JOINT, max_ahead=1))
        with served(config, kind=kind) as service:
            model = towers.build(seed=5)
            streams.append(train(service.open("s"), 12, model=model))

    for stream in streams[1:]:
        worlds.assert_same_batches(streams[0], stream)
    assert [batch.snapshot_step for batch in streams[0]] == [0, 0, *range(1, 11)]


def test_a_policy_chooses_distinct_candidates_and_says_their_scores(tmp_path, kind):
    config = worlds.config(tmp_path, s=JOINT)

    with served(config, kind=kind) as service:
        for batch in train(service.open("s"), 10, model=towers.build(seed=5)):
            assert len(set(batch.ids.tolist())) == 8
            assert np.isfinite(batch.scores).all()
            assert not batch.late


def test_ids_only_sessions_need_no_data(tmp_path, kind):
    config = worlds.config(tmp_path, s=with_spec(IDS_ONLY, num_steps=3))

    with served(config, kind=kind) as service:
        batches = list(service.open("s").batches())

    assert [len(batch.ids) for batch in batches] == [8, 8, 8]
    assert all(list(batch.columns) == [] for batch in batches)


def test_columns_are_those_of_the_session_or_those_asked_for(tmp_path, kind):
    config = worlds.config(tmp_path, s=with_spec(UNIFORM, columns=["caption"]))

    with served(config, kind=kind) as service:
        session = service.open("s")
        assert list(next(session.batches()).columns) == ["caption"]
        chosen = next(session.batches(columns=["number", "image"]))
        assert list(chosen.columns) == ["number", "image"]
        assert next(session.batches(columns=[])).rows is None
        with pytest.raises(KeyError, match=r"no column 'text'; it has"):
            chosen["text"]
        with pytest.raises(ConfigError, match=r"no columns \['nope'\] in the pool"):
            next(session.batches(columns=["nope"]))


def test_torch_batches_share_memory_and_can_be_written_to(tmp_path, kind):
    import torch

    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config, kind=kind) as service:
        batch = next(service.open("s").batches(format="torch"))
        image = batch["image"]
        image *= 2

        assert image.shape == (8, 4)
        assert image.dtype == torch.float32
        assert torch.equal(batch["image"], image)  # the same memory
        assert batch.ids.dtype == torch.int64
        assert batch.weights.dtype == torch.float32
        assert isinstance(batch["caption"], list)


def test_an_unknown_array_format_is_refused():
    with pytest.raises(ValueError, match=r"'numpy' or 'torch'; got 'jax'"):
        check_format("jax")


def test_ranks_share_each_global_batch(tmp_path, kind):
    config = worlds.config(tmp_path, one=UNIFORM, many=UNIFORM)

    with served(config, kind=kind) as service:
        whole = train(service.open("one"), 6)
        ranks = [service.open("many", rank=r, world_size=4) for r in range(4)]
        streams = [session.batches() for session in ranks]
        for step in range(6):
            slices = [next(stream) for stream in streams]
            for session, batch in zip(ranks, slices, strict=True):
                assert service.describe("many").next_step == step
                session.report(batch)
            np.testing.assert_array_equal(
                np.concatenate([batch.ids for batch in slices]), whole[step].ids
            )
        assert service.describe("many").next_step == 6


def test_ranks_that_cannot_be_are_refused(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config, kind=kind) as service:
        with pytest.raises(SessionError, match=r"8 examples cannot be cut into 3 eq"):
            service.open("s", world_size=3)
        with pytest.raises(SessionError, match=r"rank must be .*got rank 2 of 2"):
            service.open("s", rank=2, world_size=2)


# --- what depends on the trainer ----------------------------------------------------


@pytest.mark.parametrize(
    ("max_ahead", "publish_every", "expected"),
    [
        (0, 1, [0, 1, 2, 3, 4, 5, 6, 7]),
        (1, 1, [0, 0, 1, 2, 3, 4, 5, 6]),
        (3, 1, [0, 0, 0, 0, 1, 2, 3, 4]),
        (0, 3, [0, 0, 0, 3, 3, 3, 6, 6]),
        (1, 2, [0, 0, 0, 2, 2, 4, 4, 6]),
    ],
)
def test_staleness_is_decided_by_step_numbers(
    tmp_path, kind, max_ahead, publish_every, expected
):
    spec = with_spec(JOINT, max_ahead=max_ahead, publish_every=publish_every)
    config = worlds.config(tmp_path, s=spec)

    with served(config, kind=kind) as service:
        batches = train(service.open("s"), 8, model=towers.build(seed=5))

    assert [batch.snapshot_step for batch in batches] == expected


@pytest.mark.parametrize("prefetch", [1, 2, 7])
def test_how_far_a_client_prefetches_changes_nothing(tmp_path, prefetch):
    spec = with_spec(JOINT, max_ahead=2)
    streams = []
    for number in (1, prefetch):
        config = worlds.config(tmp_path / f"{number}-{len(streams)}", s=spec)
        with served(config) as service:
            model = towers.build(seed=5)
            session = service.open("s")
            streams.append(train(session, 10, model=model, prefetch=number))

    worlds.assert_same_batches(*streams)


def test_a_trainer_that_does_not_report_is_told_before_it_hangs(tmp_path, kind):
    config = worlds.config(tmp_path, s=with_spec(JOINT, max_ahead=1))

    with served(config, kind=kind) as service:
        session = service.open("s")
        session.publish(towers.build())
        stream = session.batches()
        next(stream)
        next(stream)
        with pytest.raises(StepNotReportedError, match=r"step 2 .* of step 0 .*report"):
            next(stream)


def test_a_trainer_that_does_not_publish_first_is_told(tmp_path, kind):
    config = worlds.config(tmp_path, s=JOINT)

    with (
        served(config, kind=kind) as service,
        pytest.raises(StepNotReportedError, match=r"publish.model. before the first"),
    ):
        next(service.open("s").batches())


def test_publishing_is_nothing_where_no_learner_scores(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config, kind=kind) as service:
        session = service.open("s")
        batch = next(session.batches())
        assert session.publish(object()) is False
        session.report(batch)


def test_publishing_a_step_twice_keeps_the_first(tmp_path, kind):
    config = worlds.config(tmp_path, s=JOINT)

    with served(config, kind=kind) as service:
        session = service.open("s")
        assert session.publish(towers.build(seed=5)) is True
        batch = next(session.batches())
        assert session.publish(towers.build(seed=6)) is True
        assert session.publish(towers.build(seed=8)) is False
        session.report(batch)


def test_configured_weights_score_the_first_steps(tmp_path, kind):
    from curator.models import write_weights

    path = tmp_path / "learner.safetensors"
    write_weights(path, towers.build(seed=5))
    streams = []
    for name, learner in (("file", {"weights": str(path)}), ("published", None)):
        config = worlds.config(tmp_path / name, learner=learner, s=JOINT)
        with served(config, kind=kind) as service:
            model = towers.build(seed=5)
            streams.append(train(service.open("s"), 6, model=model))

    worlds.assert_same_batches(*streams)


# --- feedback -----------------------------------------------------------------------


def test_a_report_may_be_repeated_and_may_name_ids(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config, kind=kind) as service:
        session = service.open("s")
        stream = session.batches()
        first, second = next(stream), next(stream)
        session.report(second.ids, loss=np.zeros(8))
        assert service.describe("s").next_step == 0
        session.report(first, loss=np.zeros(8))
        session.report(first, loss=np.ones(8))
        assert service.describe("s").next_step == 2


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (np.zeros(7), r"step 0: expected losses of shape \(8,\); .*\(7,\): one number"),
        (np.float32(0.5), r"shape \(\): it looks reduced .*reduction='none'"),
        (np.zeros(1), r"shape \(1,\): it looks reduced already"),
        ("abc", r"got <U3 of shape \(\): one number per example"),
        (np.zeros((8, 1)), r"shape \(8, 1\)"),
        (np.array(["a"] * 8), r"expected losses of shape .*got <U1"),
    ],
)
def test_losses_that_are_none_are_refused_and_the_step_stays_open(
    tmp_path, kind, loss, message
):
    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config, kind=kind) as service:
        session = service.open("s")
        batch = next(session.batches())
        with pytest.raises(FeedbackError, match=message):
            session.report(batch, loss=loss)
        assert service.describe("s").next_step == 0
        session.report(batch, loss=np.zeros(8))
        assert service.describe("s").next_step == 1


def test_losses_come_from_any_torch_tensor(tmp_path):
    import torch

    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config) as service:
        session = service.open("s")
        for batch, dtype in zip(
            session.batches(),
            (torch.float32, torch.bfloat16, torch.float64),
            strict=False,
        ):
            session.report(batch, loss=torch.ones(8, dtype=dtype, requires_grad=True))
        assert service.describe("s").next_step == 3


def test_ids_that_are_of_no_batch_are_refused(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config, kind=kind) as service:
        session = service.open("s")
        batch = next(session.batches())
        with pytest.raises(
            FeedbackError, match=r"of no batch that waits .*steps 0 to 0"
        ):
            session.report(np.arange(8))
        with pytest.raises(FeedbackError, match=r"one-dimensional integers; got float"):
            session.report(np.zeros(8))
        with pytest.raises(
            FeedbackError, match=r"ids are not those of rows 0 to 8 of step 0"
        ):
            session._transport.report("s", 0, 0, 1, batch.ids[::-1].copy(), None)
        why = r"step 99 is reported, but session 's' is at step 0 and only its first"
        with pytest.raises(SessionMismatchError, match=why):
            session._transport.report("s", 99, 0, 1, batch.ids, None)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"image.weight": np.zeros((3, 4), np.float32)},
            r"bias.*missing|missing.*bias",
        ),
        ({}, r"^published weights do not fit the model of .*missing"),
        (towers.build(width=5), r"image.weight.*\(?\[?5, 4"),
        ({"a": "text"}, "a"),
        (42, r"torch.nn.Module, or a mapping"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, kind, weights, message):
    config = worlds.config(tmp_path, s=JOINT)

    with served(config, kind=kind) as service:
        session = service.open("s")
        with pytest.raises(SnapshotError, match=message):
            session.publish(weights)
        session.publish(towers.build(seed=5))  # nothing is lost
        next(session.batches())


# --- features from the trainer ------------------------------------------------------


def embeddings(seed, rows):
    import torch

    model = towers.build(seed=seed).eval()
    with torch.inference_mode():
        out = model(
            {name: torch.from_numpy(rows[name].copy()) for name in worlds.COLUMNS}
        )
    unit = torch.nn.functional.normalize
    return PairEmbeddings(
        unit(out["queries"]).numpy(),
        unit(out["targets"]).numpy(),
        float(out["logit_scale"].detach()),
        float(out["logit_bias"].detach()),
    )


@pytest.mark.parametrize("spec", [JOINT, TOPK])
def test_features_of_the_trainer_select_what_the_servers_would(tmp_path, kind, spec):
    config = worlds.config(
        tmp_path, server_side=spec, trainer_side=with_spec(spec, features="trainer")
    )

    with served(config, kind=kind) as service:
        session = service.open("server_side")
        session.publish(towers.build(seed=5))
        expected = train(session, 5)
        session = service.open("trainer_side")
        for candidates, wanted in zip(session.super_batches(), expected, strict=False):
            assert len(candidates) == 24
            batch = session.select(candidates, learner=embeddings(5, candidates))
            np.testing.assert_array_equal(batch.ids, wanted.ids)
            assert batch.rows.equals(wanted.rows)
            session.report(batch, loss=np.zeros(8))


def as_tensors(given):
    """Returns embeddings as a training loop has them: tensors of a graph."""
    import torch

    for side in ("queries", "targets", "logit_scale"):
        tensor = torch.tensor(getattr(given, side), requires_grad=True)
        object.__setattr__(given, side, tensor)  # past the tests' own type checks
    object.__setattr__(given, "logit_bias", np.array(given.logit_bias))
    return given


def test_embeddings_of_the_trainer_may_be_tensors(tmp_path, kind):
    spec = with_spec(JOINT, features="trainer")
    chosen = []
    for name, convert in (("arrays", lambda given: given), ("tensors", as_tensors)):
        with served(worlds.config(tmp_path / name, s=spec), kind=kind) as service:
            session = service.open("s")
            candidates = next(session.super_batches())
            given = convert(embeddings(5, candidates))
            chosen.append(session.select(candidates, learner=given).ids)

    np.testing.assert_array_equal(*chosen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": [1.0, 2.0]}, r"learner.embeddings: expected queries of shape"),
        ({"targets": 3.0}, r"expected targets of shape \(24, width\)"),
        ({"targets": np.ones((31, 4), np.float32)}, r"got float32 of shape \(31, 4\)"),
        ({"queries": np.ones((24, 4), np.int64)}, r"floating-point; got int64"),
        ({"logit_scale": np.ones(2)}, r"logit_scale: expected a number; got float64"),
        ({"logit_bias": "low"}, r"logit_bias: expected a number; got"),
    ],
)
def test_embeddings_that_are_none_are_refused(tmp_path, kind, change, message):
    spec = with_spec(JOINT, features="trainer")
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        candidates = next(session.super_batches())
        given = embeddings(5, candidates)
        for name, value in change.items():
            object.__setattr__(given, name, value)  # past the tests' own type checks
        with pytest.raises(FeatureError, match=message):
            session.select(candidates, learner=given)
        with pytest.raises((FeatureError, FeedbackError)):
            session.select(candidates, learner=(given.queries, [1.0]))


@pytest.mark.parametrize("policy", ["kcenter", "facility_location", "logdet"])
def test_embeddings_may_be_a_column_of_the_pool(tmp_path, kind, policy):
    from curator.config import parse_session

    spec = parse_session(
        {
            "pool": "pairs",
            "batch_size": 8,
            "super_batch_size": 24,
            "policy": {"name": policy, "embeddings": "pool.vector"},
        }
    )
    vectors = worlds.pairs()["image"].combine_chunks().storage
    pool = MemoryPool(worlds.pairs().append_column("vector", vectors))

    with served(worlds.config(tmp_path, s=spec), kind=kind, pool=pool) as service:
        batch = next(service.open("s").batches())

    assert len(set(batch.ids.tolist())) == 8


def test_losses_of_the_trainer_select_the_top_k(tmp_path, kind):
    from curator.policies import TopK

    spec = with_spec(
        TOPK,
        policy=TopK(loss="scalar", score="hard_learner"),
        features="trainer",
        learner=None,
        reference=None,
    )
    config = worlds.config(tmp_path, s=spec)

    with served(config, kind=kind) as service:
        session = service.open("s")
        candidates = next(session.super_batches())
        losses = np.random.default_rng(0).standard_normal(24).astype(np.float32)
        batch = session.select(candidates, learner=losses)
        best = candidates.ids[np.argsort(-losses)[:8]]
        assert sorted(batch.ids) == sorted(best)
        again = session.select(candidates, learner=-losses)
        np.testing.assert_array_equal(again.ids, batch.ids)  # defined once


def test_features_that_do_not_fit_are_refused(tmp_path, kind):
    spec = with_spec(JOINT, features="trainer", reference=None)
    config = worlds.config(tmp_path, s=spec, scored=JOINT)

    with served(config, kind=kind) as service:
        session = service.open("s")
        candidates = next(session.super_batches())
        good = embeddings(5, candidates)
        with pytest.raises(FeatureError, match=r"needs reference.embeddings"):
            session.select(candidates, learner=good)
        with pytest.raises(FeatureError, match=r"not those of step 0: .* 24 cand"):
            session._transport.select("s", 0, candidates.ids[::-1].copy(), {})
        short = dataclasses.replace(
            good, queries=good.queries[:9], targets=good.targets[:9]
        )
        with pytest.raises(FeatureError):
            session.select(candidates, learner=short, reference=short)
        with pytest.raises(
            SessionError, match=r"in order: step 0 comes next; got step 3"
        ):
            session._transport.select("s", 3, candidates.ids, {})
        with pytest.raises(FeatureError, match=r"features = 'trainer'"):
            next(service.open("scored").super_batches())
        with pytest.raises(SessionError, match=r"iterate session.super_batches\(\)"):
            next(session.batches())
        session.select(candidates, learner=good, reference=good)  # nothing is lost


# --- faults of models ---------------------------------------------------------------


def test_a_model_that_fails_is_an_error_that_can_be_asked_again(tmp_path, kind):
    config = worlds.config(
        tmp_path,
        learner={"args": {"fail_on": 17}},
        s=with_spec(JOINT, super_batch_size=200),
    )

    with served(config, kind=kind) as service:
        session = service.open("s")
        session.publish(towers.build(seed=5))
        for _ in range(2):
            with pytest.raises(ScoringError, match=r"cannot score example 17"):
                next(session.batches())
        assert service.describe("s").num_defined == 0


def test_rows_that_are_not_finite_are_never_selected_and_counted(tmp_path, kind):
    config = worlds.config(tmp_path, learner={"args": {"nan_on": 3}}, s=JOINT)

    with served(config, kind=kind) as service:
        session = service.open("s")
        batches = train(session, 8, model=towers.build(seed=5))
        cost = service.describe("s").cost

    assert all((batch.ids % 3 != 0).all() for batch in batches)
    assert cost["num_quarantined"] == pytest.approx(24 * 8 / 3, abs=15)
    assert cost["num_topped_up"] == 0
    assert cost["num_candidates"] >= 24 * 8


def test_late_scorers_fall_back_to_a_uniform_draw_that_is_flagged(tmp_path, kind):
    spec = with_spec(JOINT, on_late="uniform", late_after_seconds=0.01)
    config = worlds.config(tmp_path, learner={"args": {"gate": True}}, s=spec)

    towers.GATE.clear()
    try:
        with served(config, kind=kind) as service:
            session = service.open("s")
            session.publish(towers.build(seed=5))
            stream = session.batches()
            batch = next(stream)
            assert batch.late
            assert batch.snapshot_step is None
            assert len(set(batch.ids.tolist())) == 8
            session.report(batch)
            assert service.describe("s").cost["num_late"] >= 1
            session.load_state_dict({**session.state_dict(), "step": 0})
            again = next(session.batches())
            assert again.late
            np.testing.assert_array_equal(again.ids, batch.ids)
            towers.GATE.set()
    finally:
        towers.GATE.set()


@pytest.mark.slow
def test_scores_that_came_too_late_have_cost_what_they_did(tmp_path, kind):
    spec = with_spec(TOPK, on_late="uniform", late_after_seconds=2.0, num_steps=6)
    config = worlds.config(tmp_path, learner={"args": {"gate": True}}, s=spec)

    towers.AT_GATE.clear()
    towers.GATE.clear()
    with served(config, kind=kind) as service:
        try:
            session = service.open("s")
            session.publish(towers.build(seed=5))
            towers.AT_GATE.wait()  # from here on it cannot be called off
            stream = session.batches()
            first = next(stream)
        finally:
            towers.GATE.set()
        session.report(first)
        for batch in stream:
            session.report(batch)
        cost = service.describe("s").cost

    assert first.late
    assert cost["num_late"] == 1
    assert cost["num_learner_scored"] == 6 * 24
    assert cost["scoring_seconds"] > 2.0


def test_the_reference_is_asked_once_for_each_example(tmp_path, kind):
    config = worlds.config(tmp_path, a=JOINT, b=with_spec(JOINT, seed=9))

    with served(config, kind=kind) as service:
        train(service.open("a"), 8, model=towers.build(seed=5))  # an epoch: 8 x 24
        first = service.describe("a").cost["num_reference_scored"]
        assert first == 8 * 24
        train(service.open("b"), 8, model=towers.build(seed=5))
        assert service.describe("b").cost["num_reference_scored"] == 200 - first


# --- sessions -----------------------------------------------------------------------


def test_a_session_that_is_unknown_is_an_error_with_a_hint(tmp_path, kind):
    config = worlds.config(tmp_path, clip=UNIFORM)

    with served(config, kind=kind) as service:
        with pytest.raises(
            UnknownSessionError, match=r"'clop' \(did you mean 'clip'\?"
        ):
            service.open("clop")
        with pytest.raises(ConfigError, match=r"a session's name is .*'\.\./x'"):
            service.open("../x")
        assert service.names() == ["clip"]


def test_a_client_may_bring_the_specification(tmp_path, kind):
    config = worlds.config(tmp_path)

    with served(config, kind=kind) as service:
        table = {"pool": "ids", "batch_size": 4, "num_steps": 2}
        assert len(list(service.open("mine", table).batches())) == 2
        assert service.names() == ["mine"]
        with pytest.raises(ConfigError, match=r"no pool 'idz'.*did you mean 'ids'"):
            service.open("other", {"pool": "idz", "batch_size": 4})
        with pytest.raises(ConfigError, match=r"at most the 1000 examples .*got 1001"):
            service.open("other", {"pool": "ids", "batch_size": 1001})
        with pytest.raises(SessionMismatchError, match=r"batch_size: was 4, now 5"):
            service.open("mine", {**table, "batch_size": 5})
    with served(config, kind=kind) as service:
        assert service.open("mine").info.spec.batch_size == 4


def test_another_specification_under_an_existing_name_is_refused(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        service.open("s")

    changed = with_spec(UNIFORM, seed=4)
    with (
        served(worlds.config(tmp_path, s=changed), kind=kind) as service,
        pytest.raises(SessionMismatchError, match=r"seed: was 3, now 4.*new name"),
    ):
        service.open("s")


def test_another_specification_for_a_configured_session_is_refused(tmp_path, kind):
    with served(worlds.config(tmp_path, s=UNIFORM), kind=kind) as service:
        with pytest.raises(SessionMismatchError, match=r"seed: was 3, now 4.*new name"):
            service.open("s", with_spec(UNIFORM, seed=4))
        assert service.open("s").info.spec.seed == 3
        assert service.open("s", UNIFORM).info.spec.seed == 3


def test_a_pool_that_changed_is_refused(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM)
    with served(config, kind=kind) as service:
        service.open("s")

    other = MemoryPool(worlds.pairs(seed=1))
    with (
        served(config, kind=kind, pool=other) as service,
        pytest.raises(PoolChangedError, match=r"'pairs' has changed since session 's'"),
    ):
        service.open("s")


def test_a_reference_that_changed_is_refused(tmp_path, kind):
    with served(worlds.config(tmp_path, s=JOINT), kind=kind) as service:
        service.open("s")

    config = worlds.config(tmp_path, reference={"args": {"seed": 8}}, s=JOINT)
    with (
        served(config, kind=kind) as service,
        pytest.raises(SessionMismatchError, match=r"reference model 'reference' has"),
    ):
        service.open("s")


def test_a_model_that_cannot_be_built_is_told(tmp_path, kind):
    config = worlds.config(tmp_path, learner={"factory": "towers:biuld"}, s=JOINT)

    with (
        served(config, kind=kind) as service,
        pytest.raises(ConfigError, match=r"biuld"),
    ):
        service.open("s")


def test_columns_that_a_model_reads_must_be_in_the_pool(tmp_path, kind):
    config = worlds.config(tmp_path, learner={"columns": ["imagge"]}, s=JOINT)

    with (
        served(config, kind=kind) as service,
        pytest.raises(ConfigError, match=r"no 'imagge' \(did you mean 'image'\?"),
    ):
        service.open("s")


# --- resuming -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_that_stops_anywhere_continues_the_same_stream(tmp_path, kind):
    spec = with_spec(JOINT, max_ahead=1, publish_every=2)
    with served(worlds.config(tmp_path / "whole", s=spec), kind=kind) as service:
        whole = train(service.open("s"), 9, model=towers.build(seed=5))

    config = worlds.config(tmp_path / "cut", s=spec)
    model = towers.build(seed=5)
    pieces = []
    for _ in range(9):
        with served(config, kind=kind) as service:
            pieces += train(service.open("s"), 1, model=model)

    worlds.assert_same_batches(pieces, whole)


def test_a_session_resumes_at_the_first_step_that_is_not_reported(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM)
    with served(config, kind=kind) as service:
        session = service.open("s")
        train(session, 3)
        fetched = next(session.batches())
        assert fetched.step == 3

    with served(config, kind=kind) as service:
        again = next(service.open("s").batches())
    worlds.assert_same_batches([again], [fetched])


def test_every_state_replays_the_batches_that_followed_it(tmp_path, kind):
    config = worlds.config(tmp_path, s=with_spec(UNIFORM, num_steps=6))

    with served(config, kind=kind) as service:
        session = service.open("s")
        states, whole = [], []
        for batch in session.batches():
            whole.append(batch)
            session.report(batch)
            states.append(session.state_dict())
        for step, state in enumerate(states):
            session.load_state_dict(state)
            worlds.assert_same_batches(list(session.batches()), whole[step + 1 :])


def test_a_state_is_loaded_while_iterating(tmp_path, kind):
    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config, kind=kind) as service:
        session = service.open("s")
        stream = session.batches()
        state = session.state_dict()
        steps = [next(stream).step for _ in range(3)]
        session.load_state_dict(state)
        assert [*steps, next(stream).step] == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session": "t"}, "session is 't', this session's is 's'"),
        ({"fingerprint": "0"}, "fingerprint is '0'"),
        ({"version": 2}, "version is 2"),
        ({"step": -1}, "step must be an integer from 0; got -1"),
    ],
)
def test_a_state_of_another_session_is_refused(tmp_path, change, message):
    config = worlds.config(tmp_path, s=UNIFORM)

    with served(config, kind="local") as service:
        session = service.open("s")
        with pytest.raises(SessionMismatchError, match=message):
            session.load_state_dict({**session.state_dict(), **change})


def test_no_grpc_error_reaches_the_user(tmp_path):
    """Whatever is done wrong above, and a server that goes away."""
    from curator.errors import CuratorError

    with served(worlds.config(tmp_path, s=UNIFORM), retry_seconds=0.0) as service:
        session = service.open("s")
        stream = session.batches()
        next(stream)
    for call in (
        lambda: service.open("s"),
        lambda: list(session.batches()),
        lambda: session.report(np.arange(8)),
        lambda: service.names(),
    ):
        with pytest.raises((CuratorError, ValueError)) as caught:
            call()
        assert not isinstance(caught.value, grpc.RpcError)


def test_models_are_not_loaded_for_sessions_that_need_none(tmp_path, kind):
    broken = ModelSpec(factory="nowhere:build", columns=["image"])
    base = worlds.config(tmp_path, s=with_spec(UNIFORM, learner="broken"))
    config = Config(
        server=base.server,
        pools=base.pools,
        models={"broken": broken},
        sessions=base.sessions,
    )

    with served(config, kind=kind) as service:
        train(service.open("s"), 2)


@pytest.mark.parametrize("given", [None, "true"])
def test_grpc_does_not_prepare_for_forks_unless_told_to(tmp_path, monkeypatch, given):
    import os

    name = "GRPC_ENABLE_FORK_SUPPORT"
    monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(name, given)

    with served(worlds.config(tmp_path, s=UNIFORM)):
        assert os.environ[name] == (given or "false")
