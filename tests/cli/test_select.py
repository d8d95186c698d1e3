"""The command: what it prints, and what a wrong call gets."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from subsets import outputs_of, write_pool, write_scores

from curator.cli.__main__ import main
from curator.offline import read_subset
from curator.pools import guess_format, open_pool


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    return write_scores(tmp_path / "scores", outputs_of(0))


def call(scores: Path, *options: str) -> list[str]:
    out = scores.parent / "subset.parquet"
    return ["select", str(scores), "--out", str(out), *options]


LOSS = ("--policy", "topk", "-o", "score=loss")


def test_it_says_how_the_subset_differs(
    scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(call(scores, *LOSS, "--fraction", "0.1")) == 0

    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith(
        "selected 20 of 200 examples by TopK(score='loss', loss='scalar') in "
    )
    assert lines[1] == "  2 have a feature that is not finite, and were put aside"
    assert "mean         5%        50%        95%" in out
    (start,) = [i for i, line in enumerate(lines) if line.startswith("loss ")]
    whole, subset = (float(line.split()[-1]) for line in lines[start : start + 2])
    assert subset > whole
    assert len(read_subset(scores.parent / "subset.parquet").ids) == 20


def test_json_is_one_object(scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call(scores, "--where", "loss > 2", "--json")) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["num_selected"] == found["num_candidates"] < 200
    assert found["policy"] is found["rows"] is None
    names = [number["name"] for number in found["difference"]["numbers"]]
    assert names == ["entropy", "grad_norm", "loss", "nuclear_norm", "num_tokens"]
    assert len(found["difference"]["numbers"][2]["whole_counts"]) == 40


def test_a_pool_adds_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, fingerprint = write_pool(tmp_path)
    scores = write_scores(tmp_path / "scores", outputs_of(0), pool=fingerprint)
    rows = tmp_path / "rows.arrow"

    status = main(
        call(
            scores,
            *("--policy", "domain_quota", "-o", "quotas={web = 1, code = 3}"),
            *("--num-selected", "40", "--config", str(config), "--pool", "p"),
            *("--rows", str(rows), "--compare", "domain, text, label"),
        )
    )

    out = capsys.readouterr().out
    assert status == 0
    assert f"  their rows: {rows}\n" in out
    assert "\n  web " in out
    assert " 25.00%\n" in out
    assert " 75.00%\n" in out
    assert "\n  190 more " in out
    assert rows.exists()


def test_a_pool_may_be_a_file(tmp_path: Path) -> None:
    config, fingerprint = write_pool(tmp_path)
    path = write_scores(tmp_path / "s", outputs_of(0), pool=fingerprint)
    files, rows = str(tmp_path / "pool.parquet"), tmp_path / "rows.parquet"
    where = ("--where", "domain == 'web'", "--rows", str(rows))

    assert main(call(path, *where, "--pool", files)) == 0
    found = pq.read_table(rows)
    rows.unlink()
    (tmp_path / "subset.parquet").unlink()
    assert main(call(path, *where, "--config", str(config), "--pool", "p")) == 0
    assert pq.read_table(rows).equals(found)
    assert set(found["domain"].to_pylist()) == {"web"}


@pytest.mark.parametrize(("name", "ending"), [("hf", ""), ("mds", "/")])
def test_rows_of_a_folder_are_a_folder_of_its_format(
    tmp_path: Path, name: str, ending: str
) -> None:
    source = Path(__file__).parents[1] / "pools" / "data" / name
    outputs = {"loss": np.arange(12, dtype=np.float32)}
    pool = ("--pool", str(source))
    with contextlib.closing(open_pool(guess_format(source), source)) as opened:
        path = write_scores(tmp_path / "s", outputs, pool=opened.fingerprint)
        expected = opened.take(np.array([10, 11]))
    rows = tmp_path / "rows"

    given = ("--where", "loss > 9", "--rows", f"{rows}{ending}")
    assert main(call(path, *given, *pool)) == 0

    assert guess_format(rows) == guess_format(source)
    with contextlib.closing(open_pool(guess_format(rows), rows)) as written:
        assert written.take(np.arange(2)).equals(expected)
        assert written.num_examples == 2


def test_two_models_are_named(scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_scores(scores.with_name("other"), outputs_of(1))
    out = scores.parent / "subset.parquet"

    status = main(
        [
            *("select", "--learner", str(scores), "--reference", str(other)),
            *("--policy", "softmax", "-o", "beta=0.5", "--seed", "3"),
            *("--num-selected", "30", "--super-batch-size", "50", "--out", str(out)),
        ]
    )

    assert status == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split()[0] for line in lines if " whole " in f"{line} "}
    assert {"learner.loss", "reference.loss", "learnability"} <= names
    assert read_subset(out).metadata["seed"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--policy", "tokp", "--num-selected", "3"),
            "policy.name: unknown policy 'tokp' (did you mean 'topk'?). Known: ",
        ),
        (
            (*LOSS, "-o", "temprature=3", "--num-selected", "3"),
            "unknown key 'policy.temprature'",
        ),
        (
            ("--policy", "softmax", "-o", "beta=hot", "--num-selected", "3"),
            "policy.beta: expected a valid number; got 'hot'",
        ),
        (
            ("--policy", "topk", "-o", "score=los", "--num-selected", "3"),
            "policy.score: expected ",
        ),
        (
            (*LOSS, "-o", "score=entropy", "--num-selected", "3"),
            "option 'score' is given more than once",
        ),
        ((*LOSS, "-o", "name=x", "--fraction", "1"), "option 'name': --policy says it"),
        ((*LOSS, "--fraction", "1", "--compare", ","), "compare: no name in ','"),
        (
            ("--where", "los_ < 3"),
            "where: there is no 'los_' (did you mean 'loss'?)",
        ),
        (("--where", "zz < 3"), "Known: easy_reference, entropy, grad_norm, hard_l"),
        (("--where", "not " * 400 + "loss < 3"), "nested more than 50 deep"),
        (("--where", "\udcff < 3"), "it has characters that are no text"),
        (("-o", "score=loss"), "option 'score': of a policy; name one with --policy"),
        ((*LOSS,), "num_selected: a policy needs it, or a fraction, or a threshold"),
        ((*LOSS, "--num-selected", "3", "--pool", "p"), "no pool at 'p': no such file"),
        (
            (*LOSS, "--num-selected", "300"),
            "num_selected=300 is above the 200 examples",
        ),
        (
            ("--policy", "topk", "--num-selected", "3"),
            "give the scores of each, as learner and reference (--learner SCORES --ref",
        ),
    ],
)
def test_what_is_wrong_is_one_line_on_stderr(
    scores: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert main(call(scores, *options)) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("curator: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-selected", "0"), "--num-selected: at least 1; got 0"),
        (("--fraction", "a tenth"), "--fraction: expected a number such as 0.1 or 1/3"),
        (("--fraction", "1/0"), "--fraction: expected a number such as 0.1 or 1/3"),
        (("--fraction", "0.1", "--threshold", "3"), "not allowed with argument"),
        (("-o", "score"), "expected KEY=VALUE; got 'score'"),
        (("--threshold", "high"), "--threshold: invalid float value"),
        (("--rows", ""), "--rows: expected the name of a file or folder on th"),
    ],
)
def test_a_wrong_call_exits_with_2(
    scores: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(call(scores, *LOSS, *options))

    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_help_has_an_example_and_needs_no_arrow() -> None:
    code = (
        "import sys; from curator.cli.__main__ import main\n"
        "try: main(['select', '--help'])\n"
        "except SystemExit: print('pyarrow' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert "curator select scores --policy topk" in found.stdout
    assert found.stdout.endswith("False\n")


def test_what_the_data_says_does_not_reach_the_terminal_as_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a\x1b[31mred" if i % 2 else "two\nlines" for i in range(200)]
    path = write_scores(tmp_path / "s", outputs_of(0), copied={"domain": names})

    assert main(call(path, *LOSS, "--fraction", "0.1")) == 0

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "  a\ufffd[31mred " in out
    assert "  two lines " in out


def test_letters_that_the_terminal_has_not_are_escaped(tmp_path: Path) -> None:
    copied = {"domain": ["\u96c6"] * 200}
    path = write_scores(tmp_path / "s", outputs_of(0), copied=copied)
    given = call(path, *LOSS, "--fraction", "0.1")
    result = subprocess.run(
        [sys.executable, "-m", "curator.cli.__main__", *given],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert rb"\u96c6" in result.stdout
