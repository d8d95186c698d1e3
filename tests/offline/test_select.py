from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from subsets import (
    NAN_IDS,
    NUM_EXAMPLES,
    job,
    outputs_of,
    pool_table,
    write_pool,
    write_scores,
)

import curator
from curator import Config, ModelSpec, PoolSpec, ServerSpec, SessionSpec
from curator.config import load_config
from curator.errors import ConfigError
from curator.models import ScoreTable
from curator.offline import read_subset, select
from curator.policies import (
    POLICIES,
    DomainQuota,
    Joint,
    Policy,
    RememberingPolicy,
    SelectiveBackprop,
    Softmax,
    TopK,
    Uniform,
)
from curator.pools import VirtualPool
from curator.rng import Noise
from curator.types import Feature

IDS = np.arange(NUM_EXAMPLES)
LOSS = TopK(score="loss")
EASY = TopK(score="easy_reference")
REQUIRED: dict[str, dict[str, Any]] = {"importance": {"backward_ratio": 2.0}}


@pytest.fixture
def learner(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "learner", outputs_of(0))


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "reference", outputs_of(1), shard_size=90)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "subset.parquet"


def features_of(policy: Policy, **scores: Path) -> dict[str, Feature]:
    """What the policy reads, as a table model serves it to a session."""
    features: dict[str, Feature] = {}
    for name in policy.needs:
        role, _, output = name.partition(".")
        if role == "pool":
            features[name] = np.asarray(pool_table().column(output).to_pylist())
        elif name != "memory":
            table = ScoreTable(scores[role])
            features[name] = table.look_up(IDS, frozenset([output]))[output]
    if isinstance(policy, RememberingPolicy):
        features["memory"] = np.empty((0, 1), np.float32)
    return features


# --- which examples ---


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_it_selects_what_the_policy_selects_of_all(
    tmp_path: Path, out: Path, name: str
) -> None:
    config, fingerprint = write_pool(tmp_path)
    learner, reference = (
        write_scores(tmp_path / role, outputs_of(seed), pool=fingerprint)
        for seed, role in enumerate(("learner", "reference"))
    )
    policy = POLICIES[name](**REQUIRED.get(name, {}))

    report = select(
        job(
            out,
            learner=learner,
            reference=reference,
            policy=policy,
            num_selected=40,
            seed=7,
            pool="p",
        ),
        load_config(config),
    )

    features = features_of(policy, learner=learner, reference=reference)
    expected = policy.select(IDS, features, 40, Noise(7, 0))
    order = np.argsort(expected.indices)
    subset = read_subset(out)
    np.testing.assert_array_equal(subset.ids, expected.indices[order])
    np.testing.assert_array_equal(subset.weights, expected.weights[order])
    assert report.stats == dict(expected.stats)
    assert (subset.scores is None) == (expected.scores is None)
    if expected.scores is not None:
        scores = expected.scores[order].astype(np.float32)
        np.testing.assert_array_equal(subset.scores, scores)


def test_it_selects_what_a_session_of_one_epoch_trains_on(
    tmp_path: Path, out: Path
) -> None:
    fingerprint = VirtualPool(NUM_EXAMPLES).fingerprint
    reference = write_scores(tmp_path / "scores", outputs_of(1), pool=fingerprint)
    config = Config(
        server=ServerSpec(state_dir=str(tmp_path / "state")),
        pools={"ids": PoolSpec(format="virtual", num_examples=NUM_EXAMPLES)},
        models={"scored": ModelSpec(kind="table", path=str(reference))},
        sessions={
            "s": SessionSpec(
                pool="ids",
                batch_size=10,
                super_batch_size=40,
                seed=3,
                policy=Softmax(score="easy_reference"),
                reference="scored",
                num_epochs=1,
            )
        },
    )
    with curator.local(config) as service:
        batches = [batch.ids for batch in service.open("s").batches()]

    select(
        job(
            out,
            reference=reference,
            policy=Softmax(score="easy_reference"),
            num_selected=50,
            super_batch_size=40,
            seed=3,
        )
    )

    assert len(batches) == NUM_EXAMPLES // 40
    np.testing.assert_array_equal(read_subset(out).ids, np.sort(np.hstack(batches)))


def test_super_batches_pass_on_what_a_policy_remembers(
    learner: Path, out: Path
) -> None:
    policy = SelectiveBackprop(ring_size=90)

    select(
        job(
            out,
            scores=learner,
            policy=policy,
            num_selected=20,
            super_batch_size=64,
            where="loss > 0",
        )
    )

    table = ScoreTable(learner)
    losses = table.look_up(IDS, frozenset({"loss"}))["loss"]
    assert isinstance(losses, np.ndarray)
    ids = IDS[np.isfinite(losses)]
    run = curator.samplers.Run(
        num_examples=len(ids), super_batch_size=64, seed=0, num_epochs=None
    )
    order = curator.samplers.Uniform().start(run).plan(0).take(0, len(ids))[0]
    memory = np.empty((0, 1), np.float32)
    expected: list[int] = []
    for step in range(4):
        block = ids[order[64 * step : 64 * (step + 1)]]
        stop = min(64 * (step + 1), len(ids))
        size = 20 * stop // len(ids) - 20 * (64 * step) // len(ids)
        features = {"learner.loss": losses[block], "memory": memory}
        found = policy.select(block, features, size, Noise(0, step))
        assert found.remember is not None
        memory = np.concatenate([memory, found.remember])[-90:]
        expected += block[found.indices].tolist()
    assert read_subset(out).ids.tolist() == sorted(expected)


def test_super_batches_add_up_to_what_is_wanted(learner: Path, out: Path) -> None:
    report = select(
        job(out, scores=learner, policy=Uniform(), num_selected=3, super_batch_size=10)
    )

    assert report.num_selected == 3


def test_a_policy_of_two_models_wants_both_by_name(
    learner: Path, reference: Path, out: Path
) -> None:
    with pytest.raises(ConfigError, match=r"learner.loss, reference.loss, which two "):
        select(job(out, scores=learner, policy=TopK(), num_selected=4))
    with pytest.raises(
        ConfigError, match=r"needs reference.loss: give the reference's"
    ):
        select(job(out, learner=learner, policy=TopK(), num_selected=4))

    select(
        job(out, learner=learner, reference=reference, policy=TopK(), num_selected=4)
    )
    a, b = (pq.read_table(path)["loss"].to_numpy() for path in (learner, reference))
    gain = np.nan_to_num(a.astype(float) - b, nan=-np.inf)
    assert read_subset(out).ids.tolist() == sorted(np.argsort(-gain)[:4].tolist())


def test_the_scores_of_one_model_serve_either_role(learner: Path, out: Path) -> None:
    losses = np.nan_to_num(pq.read_table(learner)["loss"].to_numpy(), nan=np.inf)

    select(job(out, scores=learner, policy=EASY, num_selected=4))

    assert read_subset(out).ids.tolist() == sorted(np.argsort(losses)[:4].tolist())


# --- how many ---


@pytest.mark.parametrize(
    ("fraction", "count"),
    [("0.29", 58), ("1/3", 66), ("0.001", 1), ("0.995", 199), ("0.99", 198)],
)
def test_fractions_are_exact_and_rounded_down(
    learner: Path, out: Path, fraction: str, count: int
) -> None:
    given = job(out, scores=learner, policy=Uniform(), fraction=Fraction(fraction))

    assert select(given).num_selected == count


def test_a_threshold_is_on_the_policys_own_score(
    learner: Path, reference: Path, out: Path
) -> None:
    given = job(out, learner=learner, reference=reference, policy=TopK(), threshold=0.5)

    report = select(given)

    subset = read_subset(out)
    a, b = (pq.read_table(path)["loss"].to_numpy() for path in (learner, reference))
    expected = np.flatnonzero(a.astype(float) - b >= 0.5)
    np.testing.assert_array_equal(subset.ids, expected)
    assert subset.scores is not None
    assert subset.scores.min() >= 0.5
    assert report.num_selected == len(expected) < NUM_EXAMPLES


@pytest.mark.parametrize("super_batch_size", [None, 40])
def test_statistics_of_a_threshold_are_of_what_is_above_it(
    learner: Path, out: Path, super_batch_size: int | None
) -> None:
    blocks = {"super_batch_size": super_batch_size}
    report = select(job(out, scores=learner, policy=LOSS, threshold=3.0, **blocks))

    subset = read_subset(out)
    assert subset.scores is not None
    assert report.stats == {
        "num_quarantined": len(NAN_IDS),
        "score_mean": pytest.approx(subset.scores.mean(dtype=float)),
    }
    assert subset.metadata["stats"] == report.stats


def test_a_threshold_that_nothing_reaches_is_told(learner: Path, out: Path) -> None:
    with pytest.raises(ConfigError, match="no example has a score of at least 1000"):
        select(job(out, scores=learner, policy=LOSS, threshold=1000.0))
    with pytest.raises(ConfigError, match=r"Uniform\(\) gives no scores; say num_sel"):
        select(job(out, scores=learner, policy=Uniform(), threshold=0.0))
    assert not out.exists()


def test_rows_cannot_take_the_name_of_the_subset(tmp_path: Path, out: Path) -> None:
    config, fingerprint = write_pool(tmp_path)
    scores = write_scores(tmp_path / "s", outputs_of(0), pool=fingerprint)
    rows = out.parent / "." / out.name
    given = job(out, scores=scores, policy=LOSS, num_selected=3, pool="p", rows=rows)

    with pytest.raises(ConfigError, match=r"rows: .* is the subset itself \(out\)"):
        select(given, load_config(config))
    assert not out.exists()


def test_a_quota_of_a_domain_that_there_is_not_is_told(
    tmp_path: Path, out: Path
) -> None:
    config, fingerprint = write_pool(tmp_path)
    scores = write_scores(tmp_path / "s", outputs_of(0), pool=fingerprint)
    policy = DomainQuota(quotas={"web": 1.0, "book": 1.0, "none": 0.0})
    given = job(out, scores=scores, policy=policy, num_selected=9, pool="p")

    message = r"quotas names 'book', and no example is of that domain \(did you mean"
    with pytest.raises(ConfigError, match=message):
        select(given, load_config(config))


def test_columns_that_were_copied_beside_either_scores_are_there(
    tmp_path: Path, out: Path
) -> None:
    table = pool_table()
    copied = [{"domain": table["domain"]}, {n: table[n] for n in ("length", "label")}]
    learner, reference = (
        write_scores(
            tmp_path / name, outputs_of(i), copied=copied[i], shard_size=64 + 26 * i
        )
        for i, name in enumerate(("learner", "reference"))
    )
    where = "domain == 'web' and label < 3"

    report = select(
        job(out, learner=learner, reference=reference, policy=None, where=where)
    )

    is_web = np.asarray(table["domain"].to_pylist()) == "web"
    expected = np.flatnonzero(is_web & (table["label"].to_numpy() < 3))
    np.testing.assert_array_equal(read_subset(out).ids, expected)
    compared = {category.name for category in report.difference.categories}
    compared |= {number.name for number in report.difference.numbers}
    assert {"domain", "length", "label"} <= compared


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "have no examples"),
        ([-3, 4], "example_id -3; expected positions in a pool"),
    ],
)
def test_scores_of_no_examples_or_of_none_of_a_pool_are_told(
    tmp_path: Path, out: Path, ids: list[int], message: str
) -> None:
    path = tmp_path / "s.parquet"
    columns = {"example_id": np.array(ids, np.int64), "loss": np.ones(len(ids))}
    pq.write_table(pa.table(columns), path)

    with pytest.raises(ConfigError, match=message):
        select(job(out, scores=path, policy=LOSS, num_selected=1))


def test_examples_that_are_not_finite_do_not_fill_up(learner: Path, out: Path) -> None:
    message = r"199 examples are wanted, and 198 can be selected; 2 have a feature that"
    with pytest.raises(ConfigError, match=message):
        select(job(out, scores=learner, policy=LOSS, num_selected=199))

    report = select(job(out, scores=learner, policy=LOSS, num_selected=198))
    assert report.stats["num_quarantined"] == 2
    assert not np.isin(NAN_IDS, read_subset(out).ids).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_selected": 0}, "num_selected: at least 1; got 0"),
        ({"num_selected": 201}, "num_selected=201 is above the 200 examples$"),
        (
            {"num_selected": 9, "where": "loss > percentile(loss, 97)"},
            "num_selected=9 is above the 6 examples that meet the condition",
        ),
        ({"fraction": Fraction(0)}, "fraction: above 0, and at most 1; got 0"),
        ({"fraction": Fraction(3, 2)}, "fraction: above 0, and at most 1; got 3/2"),
        ({"threshold": float("nan")}, "threshold: a finite number; got nan"),
        (
            {"num_selected": 3, "threshold": 1.0},
            r"one of them; got num_selected=3, threshold=1.0",
        ),
        ({}, "num_selected: a policy needs it, or a fraction, or a threshold"),
        ({"num_selected": 3, "seed": 2**63}, "seed: a 64-bit integer"),
        (
            {"num_selected": 3, "super_batch_size": 0},
            "super_batch_size: at least 1; got 0",
        ),
        ({"num_selected": 3, "policy": None}, "policy: num_selected needs one that sa"),
        ({"policy": None}, r"policy: expected one, or a condition \(where\), or both"),
        (
            {"policy": None, "where": "loss > 1", "super_batch_size": 9},
            "super_batch_size: a condition sees one example at a time",
        ),
        ({"num_selected": 3, "scores": None}, "scores: expected the SCORES of one mod"),
        ({"num_selected": 3, "learner": Path("x")}, "scores: expected the SCORES of"),
        ({"num_selected": 3, "rows": Path("x.arrow")}, "rows: they are in the pool th"),
        ({"num_selected": 3, "pool": "p"}, "pool: 'p' is of a configuration; got non"),
        (
            {"num_selected": 3, "policy": Joint(score="hard_learner")},
            "num_chunks must be at most num_sele",
        ),
        (
            {"num_selected": 3, "policy": DomainQuota()},
            r"needs pool.domain, a column of the pool: name the pool that was scored",
        ),
        (
            {"num_selected": 3, "compare": ("lenth",)},
            "compare: no column 'lenth'. Known: none",
        ),
    ],
)
def test_a_job_that_makes_no_sense_is_told(
    learner: Path, out: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        select(job(out, **{"scores": learner, "policy": LOSS, **changes}))
    assert not out.exists()
