from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from subsets import (
    NAN_IDS,
    NUM_EXAMPLES,
    job,
    outputs_of,
    write_scores,
)

from curator.errors import ConfigError
from curator.offline import read_subset, select
from curator.policies import (
    TopK,
)

LOSS = TopK(score="loss")


@pytest.fixture
def learner(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "learner", outputs_of(0))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "subset.parquet"


# --- conditions ---


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("loss < 1.5", lambda v: v["loss"] < 1.5),
        ("loss >= percentile(loss, 90)", lambda v: v["loss"] >= at(v["loss"], 90)),
        (
            "percentile(loss, 10) <= loss < percentile(loss, 90.5) and entropy > 1",
            lambda v: (
                (v["loss"] >= at(v["loss"], 10))
                & (v["loss"] < at(v["loss"], 90.5))
                & (v["entropy"] > 1)
            ),
        ),
        ("not learner.loss > 1", lambda v: v["loss"] <= 1),
        (
            'column("learner.loss") > percentile(column("loss"), 50)',
            lambda v: v["loss"] > at(v["loss"], 50),
        ),
        ("hard_learner > 2", lambda v: v["loss"] > 2),
        ("easy_reference > -2", lambda v: v["loss"] < 2),
    ],
)
def test_a_condition_alone_selects_all_that_meet_it(
    learner: Path, out: Path, where: str, expected: Any
) -> None:
    report = select(job(out, scores=learner, where=where))

    table = pq.read_table(learner)
    values = {
        name: table[name].to_numpy().astype(np.float64) for name in ("loss", "entropy")
    }
    subset = read_subset(out)
    np.testing.assert_array_equal(subset.ids, np.flatnonzero(expected(values)))
    assert subset.scores is None
    assert (subset.weights == 1).all()
    assert report.num_candidates == report.num_selected < NUM_EXAMPLES


def at(values: np.ndarray, percent: float) -> float:
    return float(np.nanpercentile(values, percent))


def test_a_condition_is_met_before_the_policy_looks(learner: Path, out: Path) -> None:
    where = "loss < percentile(loss, 95)"
    report = select(job(out, scores=learner, policy=LOSS, num_selected=5, where=where))

    losses = np.nan_to_num(pq.read_table(learner)["loss"].to_numpy(), nan=-1)
    ranked = np.argsort(-losses)
    assert read_subset(out).ids.tolist() == sorted(ranked[10:15].tolist())
    assert report.num_candidates == NUM_EXAMPLES - len(NAN_IDS) - 10


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("los < 1", r"where: there is no 'los' \(did you mean 'loss'\?\). Known: "),
        ("loss <", "where: 'loss <': invalid syntax"),
        ("loss", "where: 'loss': loss is float, not"),
        ("loss < 'a'", "where: .*: loss < 'a': does not go with float and string"),
        ("loss > 1e9", "where: none of 200 examples meets 'loss > 1e9'"),
        ("loss < percentile(loss)", r"expected percentile\(NAME, P\) with P from 0 to"),
        ("loss < percentile(loss, 101)", r"got percentile\(loss, 101\)"),
        ("loss < percentile(3, 10)", r"got percentile\(3, 10\)"),
        ("loss < percentile(domain, 50)", "there is no 'domain'"),
        ("loss < exp(3)", r"exp\(3\): expected a column, a number"),
        ("learnability > 0", "the score of learner.loss, reference.loss needs .* two "),
        ("learner.los > 0", "'learner.los' needs learner.los; the scores .* have "),
        ("projection > 0", "where: there is no 'projection'"),
        ("learner.projection > 0", "where: 'learner.projection' is not one value per "),
        ("pool.domain == 'web'", "needs pool.domain, a column of the pool: name"),
    ],
)
def test_a_condition_that_makes_no_sense_is_told(
    learner: Path, out: Path, where: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        select(job(out, scores=learner, where=where))


def test_percentiles_need_numbers(tmp_path: Path, out: Path) -> None:
    nothing = np.full(NUM_EXAMPLES, np.nan, np.float32)
    scores = write_scores(
        tmp_path / "s", {"loss": nothing}, copied={"domain": ["a"] * NUM_EXAMPLES}
    )

    with pytest.raises(ConfigError, match="'loss' is finite for no example"):
        select(job(out, scores=scores, where="loss > percentile(loss, 3)"))
    with pytest.raises(ConfigError, match="'domain' has no numbers, so no percentiles"):
        select(job(out, scores=scores, where="loss > percentile(domain, 3)"))


def test_percentiles_are_of_what_is_known(tmp_path: Path, out: Path) -> None:
    numbers: list[int | None] = [*range(NUM_EXAMPLES)]
    numbers[3] = None
    losses = np.zeros(NUM_EXAMPLES, np.float32)
    scores = write_scores(tmp_path / "s", {"loss": losses}, copied={"n": numbers})

    select(job(out, scores=scores, where="n < percentile(n, 50)"))

    known = [n for n in numbers if n is not None]
    expected = [n for n in known if n < np.percentile(known, 50)]
    assert read_subset(out).ids.tolist() == expected
