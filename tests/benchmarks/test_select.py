"""The benchmark of selections: real scores, and calls that the command takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.select import calls, run, write_scores
from curator.offline import Scores


def test_its_scores_are_those_of_the_command(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores", 20_000)

    scores = Scores.open(tmp_path / "scores")
    assert (scores.num_examples, len(list((tmp_path / "scores").glob("part-*")))) == (
        20_000,
        2,
    )
    assert scores.numbers == ["entropy", "loss"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["quantile", "topk"])
def test_its_calls_select_a_tenth(tmp_path: Path, what: str) -> None:
    write_scores(tmp_path / "scores", 1000)
    options = calls(1000)[what]
    out = tmp_path / "subset.parquet"

    seconds, cpu_seconds, peak_mb, report = run(
        ["select", str(tmp_path / "scores"), *options, "--out", str(out)]
    )

    assert report["num_selected"] == 100
    assert min(seconds, cpu_seconds, peak_mb) > 0
    assert out.exists()
