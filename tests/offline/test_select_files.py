from __future__ import annotations

import dataclasses
import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_disk import small_disk
from subsets import (
    NUM_EXAMPLES,
    job,
    outputs_of,
    pool_table,
    write_pool,
    write_scores,
)

import curator
from curator import Config
from curator.config import load_config
from curator.errors import ConfigError, FeatureError, StorageError
from curator.offline import read_subset, select
from curator.policies import (
    DomainQuota,
    Importance,
    Joint,
    Softmax,
    TopK,
)
from curator.pools import open_pool

IDS = np.arange(NUM_EXAMPLES)
LOSS = TopK(score="loss")


@pytest.fixture
def learner(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "learner", outputs_of(0))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "subset.parquet"


# --- columns of the pool ---


@pytest.fixture
def pooled(tmp_path: Path) -> tuple[Config, Path]:
    """A configuration with a pool, and its scores."""
    config, fingerprint = write_pool(tmp_path)
    return load_config(config), write_scores(
        tmp_path / "scores", outputs_of(0), pool=fingerprint
    )


def test_columns_of_the_pool_are_features_and_conditions(
    pooled: tuple[Config, Path], out: Path
) -> None:
    config, scores = pooled
    policy = DomainQuota(quotas={"web": 1.0, "code": 1.0}, score="loss")
    report = select(
        job(
            out,
            scores=scores,
            policy=policy,
            num_selected=20,
            where="label in (0, 1) and pool.maybe is not None",
            pool="p",
        ),
        config,
    )

    chosen = pool_table().take(read_subset(out).ids)
    (domains,) = [c for c in report.difference.categories if c.name == "domain"]
    assert sorted(chosen["domain"].to_pylist()) == ["code"] * 10 + ["web"] * 10
    assert set(chosen["label"].to_pylist()) == {0, 1}
    assert None not in chosen["maybe"].to_pylist()
    assert dict(zip(domains.values, domains.subset_counts, strict=True)) == {
        "web": 10,
        "code": 10,
        "books": 0,
    }


def test_a_subset_of_a_subset_is_of_the_same_pool(
    pooled: tuple[Config, Path], tmp_path: Path, out: Path
) -> None:
    config, scores = pooled
    first = tmp_path / "first.parquet"
    select(job(first, scores=scores, policy=TopK(score="loss"), num_selected=9), config)
    again = {"scores": first, "where": "score > 0", "pool": "p"}
    pool = pq.read_table(tmp_path / "pool.parquet")

    select(job(out, **again), config)

    known = read_subset(first).metadata["pool_fingerprint"]
    assert known is not None
    assert read_subset(out).metadata["pool_fingerprint"] == known
    pq.write_table(pool[::-1], tmp_path / "pool.parquet")
    with pytest.raises(ConfigError, match="pool 'p' is not the one that was scored"):
        select(job(tmp_path / "other.parquet", **again), config)


def test_columns_copied_beside_the_scores_need_no_pool(
    tmp_path: Path, out: Path
) -> None:
    table = pool_table()
    scores = write_scores(
        tmp_path / "scores",
        outputs_of(0),
        copied={name: table[name] for name in ("domain", "maybe", "tokens")},
    )

    report = select(
        job(
            out,
            scores=scores,
            policy=DomainQuota(),
            num_selected=30,
            where="maybe is not None",
        )
    )

    domains, maybe = report.difference.categories
    assert (domains.name, domains.subset_counts) == ("domain", [10, 10, 10])
    assert dict(zip(maybe.values, maybe.subset_counts, strict=True))["(none)"] == 0
    assert report.difference.numbers[-1].name == "len(tokens)"


def test_the_pool_has_to_be_the_one_that_was_scored(
    pooled: tuple[Config, Path], learner: Path, out: Path, tmp_path: Path
) -> None:
    config, _ = pooled
    given = job(out, scores=learner, policy=LOSS, num_selected=3, pool="p")
    with pytest.raises(ConfigError, match=r"pool 'p' is not the one that was scored: "):
        select(given, config)

    with pytest.raises(
        ConfigError, match=r"no pool 'q' \(did you mean 'p'\?\)|no pool"
    ):
        select(dataclasses.replace(given, pool="q"), config)

    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"example_id": [3, 500], "loss": [1.0, 2.0]}), foreign)
    with pytest.raises(
        ConfigError, match="are of examples 3 to 500, and pool 'p' has "
    ):
        select(dataclasses.replace(given, scores=foreign), config)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_rows_are_a_pool_of_their_own(
    pooled: tuple[Config, Path], out: Path, name: str
) -> None:
    config, scores = pooled
    rows = out.with_name(name)

    report = select(
        job(out, scores=scores, policy=LOSS, num_selected=150, pool="p", rows=rows),
        config,
    )

    pool = open_pool(rows.suffix[1:], rows)
    found = pool.take(np.arange(pool.num_examples))
    expected = pool_table().take(read_subset(out).ids).combine_chunks()
    assert report.rows == str(rows)
    assert found.to_pydict() == expected.to_pydict()
    assert found.schema.equals(pool_table().schema)


@pytest.mark.parametrize(
    ("pool", "name", "message"),
    [
        ("p", "rows.txt", r"rows: a name that ends in .parquet, .pq, .arrow, .ipc, .f"),
        ("p", "rows.csv", r"rows: column 'tokens' is list<.*>, and CSV has booleans, "),
        ("ids", "rows.arrow", "rows: the pool is virtual, it has ids and no data"),
    ],
)
def test_rows_that_cannot_be_written_are_told_before(
    tmp_path: Path, out: Path, pool: str, name: str, message: str
) -> None:
    config = load_config(write_pool(tmp_path)[0])
    losses = np.ones(NUM_EXAMPLES, np.float32)
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"example_id": IDS, "loss": losses}), foreign)

    with pytest.raises(ConfigError, match=message):
        select(
            job(
                out,
                scores=foreign,
                policy=LOSS,
                num_selected=3,
                pool=pool,
                rows=tmp_path / name,
            ),
            config,
        )


# --- the scores that are read ---


def test_scores_of_different_pools_or_examples_do_not_go_together(
    tmp_path: Path, learner: Path, out: Path
) -> None:
    other = write_scores(tmp_path / "other", outputs_of(1), pool="other")
    part = write_scores(tmp_path / "part", outputs_of(1, 100))
    both = {"policy": TopK(), "num_selected": 3}

    message = "are of different pools, with fingerprints pool and other"
    with pytest.raises(ConfigError, match=message):
        select(job(out, learner=learner, reference=other, **both))
    with pytest.raises(ConfigError, match=r"are of different examples \(200 and 100\)"):
        select(job(out, learner=learner, reference=part, **both))


def test_an_output_that_is_not_there_is_told(learner: Path, out: Path) -> None:
    few = {"loss": np.ones(9, np.float32)}
    scores = write_scores(out.with_name("few"), few)
    message = (
        r"needs learner.grad_norm; the scores '.*few' have loss: compute it with "
        "'curator score --outputs grad_norm', by a model of kind classifier"
    )

    with pytest.raises(ConfigError, match=message):
        select(job(out, scores=scores, policy=TopK(score="grad_norm"), num_selected=3))
    with pytest.raises(ConfigError, match=r"needs learner.embeddings; .*two_tower"):
        select(
            job(out, scores=scores, policy=Joint(score="hard_learner"), num_selected=3)
        )


def test_a_score_below_zero_is_the_policys_error(tmp_path: Path, out: Path) -> None:
    scores = write_scores(tmp_path / "s", {"grad_norm": np.array([1, -2], np.float32)})
    policy = Importance(backward_ratio=1.0)

    with pytest.raises(FeatureError, match="score 'grad_norm' must be at least 0"):
        select(job(out, scores=scores, policy=policy, num_selected=1))


# --- what is written ---


def test_equal_jobs_give_equal_bytes(learner: Path, out: Path) -> None:
    digests: list[str] = []
    for number, seed in enumerate((1, 1, 2)):
        path = out.with_name(f"{number}.parquet")
        policy = Softmax(score="loss")
        select(job(path, scores=learner, policy=policy, num_selected=50, seed=seed))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())

    assert digests[0] == digests[1] != digests[2]


def test_a_subset_says_what_it_is_of(learner: Path, out: Path) -> None:
    select(job(out, scores=learner, policy=LOSS, num_selected=3, where="entropy > 0.1"))

    table = pq.read_table(out)
    assert table.schema.names == ["example_id", "weight", "score"]
    assert [str(field.type) for field in table.schema] == ["int64", "float", "float"]
    metadata = dict(read_subset(out).metadata)
    assert metadata.pop("stats")["num_quarantined"] <= 2
    assert metadata == {
        "format": 1,
        "policy": {"name": "topk", "score": "loss", "loss": "scalar"},
        "where": "entropy > 0.1",
        "threshold": None,
        "seed": 0,
        "super_batch_size": None,
        "num_examples": NUM_EXAMPLES,
        "num_selected": 3,
        "scores": {
            "scores": {
                "pool_fingerprint": "pool",
                "model_fingerprint": "model of learner",
            }
        },
        "pool_fingerprint": "pool",
        "versions": {"batch-curator": curator.__version__},
    }


def test_nothing_is_written_among_the_scores(
    pooled: tuple[Config, Path], out: Path
) -> None:
    config, scores = pooled
    inside = scores / "subset.parquet"
    files = sorted(scores.iterdir())

    for where in (
        {"out": inside},
        {"out": out, "rows": scores / ".." / scores.name / "rows.parquet"},
    ):
        given = job(**where, scores=scores, policy=LOSS, num_selected=3, pool="p")
        with pytest.raises(ConfigError, match="would be in the folder of the scores"):
            select(given, config)

    assert sorted(scores.iterdir()) == files


def test_what_is_there_is_not_written_over(
    pooled: tuple[Config, Path], out: Path
) -> None:
    config, scores = pooled
    out.write_bytes(b"thesis")
    given = job(out, scores=scores, policy=LOSS, num_selected=3, pool="p")

    with pytest.raises(ConfigError, match=r"subset.parquet' is there already: choose "):
        select(given, config)
    with pytest.raises(ConfigError, match=r"subset.parquet' is there already: choose "):
        select(
            dataclasses.replace(given, out=out.with_name("new.parquet"), rows=out),
            config,
        )
    assert out.read_bytes() == b"thesis"
    assert not out.with_name("new.parquet").exists()


def test_a_folder_that_is_not_there_is_told(learner: Path, out: Path) -> None:
    with pytest.raises(
        StorageError, match=r"cannot write '.*none/s.parquet': no folder"
    ):
        select(
            job(
                out.with_name("none") / "s.parquet",
                scores=learner,
                policy=LOSS,
                num_selected=3,
            )
        )


def test_a_full_disk_leaves_nothing(tmp_path: Path, out: Path) -> None:
    losses = {"loss": outputs_of(0, 60_000)["loss"]}
    scores = write_scores(tmp_path / "s", losses, shard_size=60_000)
    with small_disk(tmp_path / "disk", "64k") as disk:
        given = job(
            disk / "s.parquet",
            scores=scores,
            policy=Softmax(score="loss"),
            fraction=Fraction(1, 2),
        )
        with pytest.raises(StorageError, match=r"no space left to write '.*s.parq"):
            select(given)

        assert list(disk.iterdir()) == []
