"""The command: whole batches of scored examples, and what a wrong call gets."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pair_worlds import unit
from scored import NUM_EXAMPLES, write_config
from subsets import NAN_IDS, outputs_of, write_pool, write_scores

from curator.cli.__main__ import main
from curator.offline import PLAN_KEY
from curator.samplers import b3_plan, cluster_plan

NUM = 200
B3 = ("--batches", "b3", "-o", "cluster_size=8", "-o", "skip=2", "-o", "window=20")


def plan(scores: Path, *options: str) -> int:
    return main(["plan", "--scores", str(scores), *options])


def read(path: Path, size: int) -> tuple[np.ndarray, pa.Table]:
    """Returns ids, a row for each batch, after a look at the other columns."""
    table = pq.read_table(path)
    assert table.column_names == ["step", "position", "example_id", "weight"]
    num_batches = len(table) // size
    steps = table["step"].to_numpy().reshape(num_batches, size)
    np.testing.assert_array_equal(
        steps, steps[0, 0] + np.arange(num_batches)[:, None] + np.zeros(size)
    )
    positions = table["position"].to_numpy().reshape(num_batches, size)
    np.testing.assert_array_equal(positions, np.tile(np.arange(size), (num_batches, 1)))
    return table["example_id"].to_numpy().reshape(num_batches, size), table


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """Scores of pairs in neighbourhoods; two have an embedding that is not finite."""
    return write_scores(tmp_path / "scores", neighbourhoods())


def neighbourhoods() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    centres = rng.standard_normal((12, 8))[rng.integers(12, size=NUM)]
    columns = outputs_of(0)
    for name in ("queries", "targets"):
        rows = unit(centres + 0.4 * rng.standard_normal((NUM, 8)))
        columns[name] = rows.astype(np.float32)
    columns["queries"][list(NAN_IDS)] = np.nan
    return columns


def finite_pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, queries and targets, as the scores are read."""
    columns = neighbourhoods()
    ids = np.setdiff1d(np.arange(NUM), NAN_IDS)
    return ids, columns["queries"][ids], columns["targets"][ids]


def test_a_plan_has_the_batches_of_the_function(
    scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scores.with_name("plan.parquet")
    given = ["--batch-size", "24", "--epoch", "2", "--seed", "7"]

    assert plan(scores, *B3, *given, "--out", str(out)) == 0

    ids, queries, targets = finite_pairs()
    wanted = b3_plan(
        queries, targets, batch_size=24, cluster_size=8, skip=2, window=20, seed=7,
        epoch=2,
    )  # fmt: skip
    batches, table = read(out, 24)
    np.testing.assert_array_equal(batches, ids[wanted.batches])
    assert batches.shape == (8, 24)
    assert len(np.unique(batches)) == batches.size
    assert table["step"][0].as_py() == 16
    assert set(table["weight"].to_pylist()) == {1.0}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("epoch 2 of b3 (embeddings = reference.embeddings, ")
    assert lines[1] == (
        "planned    192 of 200 examples in each epoch; 6 left over, 2 without a finite "
        "embedding"
    )
    assert lines[2] == "batches    8 of 24 in each epoch: steps 16 to 23"
    assert re.match(
        r"clusters   25 of 8; \d+\.\d% of [\d,]+ pairs of hard negatives are in one, "
        r"and 11\.7% in a random batch; \d+ examples have none$",
        lines[3],
    )
    assert lines[5] == f"written    {out}, 0.0 MB"


def test_clusters_are_of_like_pairs(scores: Path) -> None:
    out = scores.with_name("plan.parquet")
    given = ["--batches", "clusters", "--batch-size", "22", "--epoch", "0"]

    assert plan(scores, *given, "--out", str(out)) == 0

    ids, queries, targets = finite_pairs()
    rows = np.concatenate([queries, targets], axis=1)
    wanted = cluster_plan(rows, batch_size=22)
    batches, _ = read(out, 22)
    np.testing.assert_array_equal(batches, ids[wanted.batches])


@pytest.mark.parametrize("name", ["b3", "clusters"])
def test_a_run_is_its_epochs_one_after_the_other(scores: Path, name: str) -> None:
    paths = [scores.with_name(f"{each}.parquet") for each in ("run", 0, 1, 2)]
    given = ["--batches", name, "-o", "cluster_size=8", "--batch-size", "16"]

    assert plan(scores, *given, "--num-epochs", "3", "--out", str(paths[0])) == 0
    for epoch, path in enumerate(paths[1:]):
        assert plan(scores, *given, "--epoch", str(epoch), "--out", str(path)) == 0

    run, *epochs = map(pq.read_table, paths)
    assert pa.concat_tables(epochs).equals(run)
    orders = [tuple(each["example_id"].to_pylist()) for each in epochs]
    assert len(set(orders)) == 3
    # Over epochs only what is in no full cluster is never there.
    missing = NUM - len(NAN_IDS) - len(set().union(*orders))
    assert missing < 16


def test_the_same_call_writes_the_same_bytes_and_seeds_differ(scores: Path) -> None:
    outs = [scores.with_name(f"{i}.parquet") for i in range(3)]
    given = [*B3, "--batch-size", "16", "--epoch", "0"]
    for out, seed in zip(outs, ("5", "5", "6"), strict=True):
        assert plan(scores, *given, "--seed", seed, "--out", str(out)) == 0

    contents = [out.read_bytes() for out in outs]
    assert contents[0] == contents[1] != contents[2]
    said = json.loads(pq.read_schema(outs[0]).metadata[PLAN_KEY])
    assert said["batches"]["partitioner"] == "metis"
    assert (said["seed"], said["num_batches"], said["pool_fingerprint"]) == (
        5,
        12,
        "pool",
    )
    assert said["model_fingerprint"] == "model of scores"


def test_json_says_how_hard_the_batches_are(
    scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scores.with_name("plan.parquet")
    given = [*B3, "--batch-size", "16", "--epoch", "0", "--out", str(out)]
    assert plan(scores, *given, "--json") == 0

    found = json.loads(capsys.readouterr().out)
    columns = neighbourhoods()
    negatives = [
        [float(columns["queries"][i] @ columns["targets"][j]) for j in batch if i != j]
        for batch in read(out, 16)[0]
        for i in batch
    ]
    assert found["negatives"]["mean"] == pytest.approx(np.mean(negatives), abs=1e-5)
    hardest = np.mean([max(each) for each in negatives])
    assert found["negatives"]["hardest"] == pytest.approx(hardest, abs=1e-5)
    assert found["negatives"]["mean"] > found["random_negatives"]["mean"] + 0.1
    assert found["negatives"]["hardest"] > found["random_negatives"]["hardest"]
    assert found["batches"]["name"] == "b3"
    assert found["num_bytes"] == out.stat().st_size
    counted = [found[f"num_{name}"] for name in ("examples", "quarantined", "left_out")]
    assert counted == [200, 2, 6]


def test_without_a_file_there_is_a_summary(
    scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(scores, *B3, "--batch-size", "8", "--num-epochs", "2") == 0

    assert "written" not in capsys.readouterr().out
    assert [path.name for path in scores.parent.iterdir()] == ["scores"]


def test_a_subset_has_its_examples_and_weights(scores: Path) -> None:
    subset, out = scores.with_name("subset.parquet"), scores.with_name("plan.parquet")
    given = ["--policy", "sensitivity", "-o", "embeddings=learner.embeddings"]
    given += ["--num-selected", "90", "--out", str(subset)]
    assert main(["select", str(scores), *given]) == 0

    given = ["--subset", str(subset), "--batch-size", "16", "--epoch", "0"]
    assert plan(scores, *B3, *given, "--out", str(out)) == 0

    batches, table = read(out, 16)
    chosen = pq.read_table(subset)
    weights = dict(
        zip(chosen["example_id"].to_pylist(), chosen["weight"].to_pylist(), strict=True)
    )
    assert len({*weights.values()}) > 1
    found = [weights[each] for each in batches.ravel().tolist()]
    assert table["weight"].to_pylist() == found
    assert len(np.unique(batches)) == batches.size == 80


@pytest.mark.parametrize("where", ["beside", "pool"])
def test_examples_of_one_label_are_no_negatives(tmp_path: Path, where: str) -> None:
    config, fingerprint = write_pool(tmp_path)
    pool = pq.read_table(tmp_path / "pool.parquet")
    copied = {"maybe": pool["maybe"]} if where == "beside" else None
    scores = write_scores(
        tmp_path / "scores", neighbourhoods(), pool=fingerprint, copied=copied
    )
    named = ["--config", str(config), "--pool", "p"] if where == "pool" else []
    given = [*B3, *named, "-o", "label=maybe", "--batch-size", "16", "--epoch", "0"]
    out = tmp_path / "plan.parquet"

    assert plan(scores, *given, "--out", str(out)) == 0

    ids, queries, targets = finite_pairs()
    # A null is a label of its own.
    labels = [
        f"{i}" if v is None else v for i, v in enumerate(pool["maybe"].to_pylist())
    ]
    numbers = np.unique(labels, return_inverse=True)[1]
    fields: dict[str, Any] = {"cluster_size": 8, "skip": 2, "window": 20}
    wanted, plain = (
        b3_plan(queries, targets, batch_size=16, labels=each, **fields).batches
        for each in (numbers[ids], None)
    )
    batches, _ = read(out, 16)
    np.testing.assert_array_equal(batches, ids[wanted])
    assert not np.array_equal(wanted, plain)


@pytest.mark.parametrize("feature", ["reference.projection", "pool.vector"])
def test_any_rows_of_numbers_are_embeddings(tmp_path: Path, feature: str) -> None:
    config, fingerprint = write_pool(tmp_path)
    columns = outputs_of(0)
    scores = write_scores(tmp_path / "scores", columns, pool=fingerprint)
    out = tmp_path / "plan.parquet"
    given = ["--config", str(config), "--pool", "p", "-o", f"embeddings={feature}"]

    assert (
        plan(
            scores, *B3, *given, "--batch-size", "8", "--epoch", "0", "--out", str(out)
        )
        == 0
    )

    ids = np.arange(NUM)
    if feature == "pool.vector":
        vectors = pq.read_table(tmp_path / "pool.parquet")["vector"].to_pylist()
        rows = np.array(vectors, np.float32)
    else:
        ids = np.setdiff1d(ids, NAN_IDS)
        rows = columns["projection"][ids]
    wanted = b3_plan(rows, rows, batch_size=8, cluster_size=8, skip=2, window=20)
    np.testing.assert_array_equal(read(out, 8)[0], ids[wanted.batches])


@pytest.mark.slow
def test_from_a_pool_to_a_trainer_as_the_page_says(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, scores = write_config(tmp_path), tmp_path / "scores"
    given = ["--pool", "p", "--model", "towers", "--out", str(scores)]
    assert main(["score", str(config), *given]) == 0
    out = tmp_path / "plan.parquet"
    given = ["--batch-size", "32", "--num-epochs", "2", "--out", str(out)]
    assert plan(scores, *B3, *given) == 0
    page = (repository / "docs" / "batches.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    dataset = torch.arange(NUM_EXAMPLES) * 10

    loader = names["loader_of"](dataset, out, 32)

    batches, _ = read(out, 32)
    assert len(loader) == len(batches) == 14
    for seen, batch in zip(loader, batches, strict=True):
        assert seen.tolist() == (batch * 10).tolist()
    for epoch in (batches[:7], batches[7:]):
        assert len(np.unique(epoch)) == epoch.size


# --- what is wrong ---

EPOCH = ("--epoch", "0")
SIZE = ("--batch-size", "16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--batches", "b4", *EPOCH, *SIZE),
            "unknown batch plan 'b4'. Known: b3, clus",
        ),
        (
            (*B3, "-o", "skp=2", *EPOCH, *SIZE),
            "unknown key 'batches.skp' (did you mean",
        ),
        ((*B3, "-o", "name=b3", *EPOCH, *SIZE), "option 'name': --batches says it"),
        ((*B3, *EPOCH), "batch_size: how many examples a batch has (--batch-size K)"),
        ((*B3, *SIZE), "epoch: which one, from 0; or num_epochs, for all of a run"),
        ((*B3, *SIZE, "--epoch", "-1"), "epoch: at least 0; got -1"),
        (
            (*B3, *SIZE, "--epoch", "4", "--num-epochs", "4"),
            "epoch: below num_epochs = 4; got 4",
        ),
        ((*B3, *SIZE, *EPOCH, "--seed", str(2**63)), "seed: a 64-bit integer; got 9"),
        (
            (*B3, "--batch-size", "12", *EPOCH),
            "batch_size must be a multiple of cluster_size; got batch_size=12, clus",
        ),
        (
            (*B3, "--batch-size", "200", *EPOCH),
            "the number of examples, 200, 2 of them without a finite embedding; got",
        ),
        (
            (*B3, *SIZE, *EPOCH, "-o", "embeddings=reference.projection"),
            "needs reference.projection; the scores",
        ),
        (
            (*B3, *SIZE, *EPOCH, "-o", "embeddings=reference.loss"),
            "embeddings: 'reference.loss' is not a row of numbers per example",
        ),
        (
            (*B3, *SIZE, *EPOCH, "-o", "embeddings=embeddings"),
            "needs 'embeddings', which is no feature: its name begins with learner., ",
        ),
        (
            (*B3, *SIZE, *EPOCH, "-o", "label=text"),
            "needs pool.text, a column of the pool: name the pool that was scored",
        ),
        ((*B3, *SIZE, *EPOCH, "--pool", "p"), "--config and --pool go together"),
        ((*B3, *SIZE, *EPOCH, "--sampler", "rs2"), "--sampler: of a sampler, and not"),
        (
            (*B3, *SIZE, *EPOCH, "--super-batch-size", "16"),
            "--super-batch-size: of a sampler, and not of --batches",
        ),
        ((*B3, *SIZE, *EPOCH, "--loss", "x"), "--loss: of a sampler, and not"),
        ((*B3, *SIZE, *EPOCH, "--subset", "none"), "subset 'none' cannot be read: No"),
        (
            ("--sampler", "rs2", *EPOCH),
            "--scores: of whole batches; add --batches NAME",
        ),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    columns = {k: v for k, v in neighbourhoods().items() if k != "projection"}
    out = tmp_path / "plan.parquet"

    assert plan(write_scores(tmp_path / "s", columns), *options, "--out", str(out)) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("curator: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not out.exists()


def test_scores_without_embeddings_are_told_how_to_get_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write_scores(tmp_path / "s", {"loss": np.ones(50, np.float32)})

    assert plan(scores, *B3, *SIZE, *EPOCH) == 1
    assert main(["plan", *B3, *SIZE, *EPOCH]) == 1

    first, second = capsys.readouterr().err.splitlines()
    assert "compute it with 'curator score --outputs embeddings', by a model" in first
    assert second == (
        "curator: scores: expected SCORES, which have the embeddings (--scores SCORES)"
    )


def test_a_plan_that_exists_is_not_written_over(
    scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scores.with_name("plan.parquet")
    out.write_text("mine")

    assert plan(scores, *B3, *SIZE, *EPOCH, "--out", str(out)) == 1

    assert "exists: delete it, or choose another name" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_a_subset_of_something_else_is_told(
    scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subsets = [scores.with_name(f"{i}.parquet") for i in range(2)]
    given = ["--where", "loss > 1", "--out"]
    other = write_scores(scores.with_name("b"), neighbourhoods(), pool="other")
    more = {k: np.concatenate([v, v]) for k, v in neighbourhoods().items()}
    larger = write_scores(scores.with_name("c"), more)
    for folder, subset in zip((other, larger), subsets, strict=True):
        assert main(["select", str(folder), *given, str(subset)]) == 0
    capsys.readouterr()

    for subset in subsets:
        call = [*B3, *SIZE, *EPOCH, "--subset", str(subset)]
        assert plan(scores, *call) == 1

    first, second = capsys.readouterr().err.splitlines()
    assert "the fingerprints are other and pool" in first
    ids = pq.read_table(subsets[1])["example_id"].to_pylist()
    missing = next(itertools.dropwhile(lambda each: each < NUM, ids))
    assert f"has example {missing}, of which the scores" in second
