"""The command: what it prints, its exit status, and what a signal or a kill leaves."""

from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from scored import NUM_EXAMPLES, contents, job, shards, write_config

from curator.cli.__main__ import main
from curator.cli.score import _duration, _progress_text
from curator.config import load_config
from curator.models import ScoreTable
from curator.offline import Progress, score

NUM_FORWARDS = 4  # of a shard of 64, in micro-batches of 16


def call(config: Path, *options: str, model: str = "classes") -> list[str]:
    return [
        *("score", str(config), "--pool", "p", "--model", model),
        *("--out", str(config.parent / "out"), "--shard-size", "64", *options),
    ]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


# --- what it prints ---


def test_scores_are_written_and_summed_up(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(call(config, "--outputs", "loss, entropy")) == 0

    out = capsys.readouterr().out
    assert out.startswith("scored 250 of 250 examples of 'p' by 'classes' in ")
    assert "entropy, loss: 0.0 MB written to " in out
    assert "loss is not finite for 3 examples" in out
    assert ScoreTable(config.parent / "out").outputs == {"entropy", "loss"}

    assert main(call(config, "--outputs", "entropy,loss")) == 0
    assert capsys.readouterr().out.startswith("all 250 examples are in ")


def test_a_table_of_ray_is_for_the_executor_that_is_asked_for(config: Path) -> None:
    given = config.read_text()
    config.write_text(f'{given}\n[ray]\naddress = "local"\n')

    assert main(call(config)) == 1  # the configuration's own is local: see above
    assert main(call(config, "--executor", "local")) == 0


def test_a_pool_and_a_model_may_be_files(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.parent
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert main(call(config)) == 0
    written = contents(folder / "out")
    _, _, body = config.read_text().partition("[models.classes]")
    body, _, _ = body.partition("[models.gated]")
    model = folder / "classes.toml"
    keys = [line.strip() for line in body.splitlines()]
    model.write_text("\n".join([*keys, "[ray]", 'address = "local"']))
    pool = str(folder / "pool.parquet")
    ours = ["--model", str(model), "--shard-size", "64", "--out"]
    capsys.readouterr()

    assert main(["score", pool, *ours, str(folder / "files")]) == 0
    assert " of 'pool.parquet' by 'classes' in " in capsys.readouterr().out
    assert contents(folder / "files") == written
    with_pool = ["score", pool, "--pool", "p", "--model", "m", "--out", "o"]
    assert main(with_pool) == 1
    assert "beside the files of a pool leave it out" in capsys.readouterr().err

    # What one call began the other goes on with.
    assert main(["score", pool, *ours, str(folder / "out")]) == 0
    assert capsys.readouterr().out.startswith("all 250 examples are in ")


@pytest.mark.parametrize(
    ("what", "model", "text", "message"),
    [
        ("pool.parquet", "net", None, "expected MODEL.toml beside the files of a pool"),
        ("server.toml", "net.toml", None, r"pool: which one of '.*server.toml'\? Name"),
        ("none", "net.toml", "", r"no pool at '.*none': no such file or folder"),
        (
            "",
            "net.toml",
            "",
            r"of which format\? It has files of csv and of parquet\.",
        ),
        ("x.bin", "net.toml", "", r"of which format\? Its name says none\. A file, or"),
        (
            "pool.parquet",
            "net.toml",
            None,
            "cannot read the model '.*net.toml': No",
        ),
        ("pool.parquet", "net.toml", "=", "net.toml: not valid TOML"),
        (
            "pool.parquet",
            "net.toml",
            "[models.a]",
            "net.toml: a configuration, where ",
        ),
        ("pool.parquet", "net.toml", "lable = 1", "unknown key 'lable'.*mean 'label'"),
    ],
)
def test_files_that_are_none_are_told(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
    model: str,
    text: str | None,
    message: str,
) -> None:
    folder = config.parent
    for name in ("other.csv", "x.bin"):
        (folder / name).touch()
    if text is not None:
        (folder / model).write_text(text)
    given = ["score", str(folder / what), "--model", str(folder / model)]
    if not model.endswith(".toml"):
        given[-1] = model

    assert main([*given, "--out", str(folder / "out")]) == 1

    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.splitlines()) == 1


def test_json_is_one_object(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call(config, "--json", "--limit", "70")) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["num_scored"], found["is_finished"]) == (70, True)
    assert found["not_finite"] == {"entropy": 1, "grad_norm": 1, "loss": 1}


def test_a_dry_run_says_the_cost_and_writes_nothing(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(call(config, "--dry-run")) == 0
    text = capsys.readouterr().out
    assert main(call(config, "--dry-run", "--json")) == 0
    found = json.loads(capsys.readouterr().out)

    assert text.startswith("would score 250 examples of 'p' by 'classes': entropy, gr")
    assert "about 0.0 MB in 4 files in " in text
    assert found["num_bytes"] == NUM_EXAMPLES * 20
    assert not (config.parent / "out").exists()


def test_what_is_wrong_is_one_line_on_stderr(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(call(config, "--outputs", "los")) == 1

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("curator: outputs: model 'classes' gives no 'los'")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "0"], "--limit: at least 1; got 0"),
        (
            ["--limit", "all"],
            "--limit: expected a whole number of at least 1; got 'all'",
        ),
        (["--shard-size", "-5"], "--shard-size: at least 1"),
        (["--rows", "x"], "unrecognized arguments"),
        (["--executor", "slurm"], "--executor: invalid choice: 'slurm'"),
        (["--out", ""], "--out: expected the name of a file or folder on this"),
        (["--out", "s3://b/o"], "file or folder on this machine; got 's3://b/o'"),
    ],
)
def test_a_wrong_call_exits_with_2(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(call(config, *options))

    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--columns", " , "], "columns: no name in ' , '"),
        (["--outputs", ""], "outputs: no name in ''"),
    ],
)
def test_an_empty_list_is_told(
    config: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(call(config, *options)) == 1

    assert message in capsys.readouterr().err


def progress(num_scored: int) -> Progress:
    return Progress(
        num_examples=4000, num_ready=1000, num_scored=num_scored, seconds=2.0
    )


@pytest.mark.parametrize(
    ("num_scored", "text"),
    [
        (0, "1,000 of 4,000 examples (25.0 %), 0/s, unknown time left"),
        (1000, "2,000 of 4,000 examples (50.0 %), 500/s, 4.0 s left"),
        (3000, "4,000 of 4,000 examples (100.0 %), 1,500/s, 0.0 s left"),
    ],
)
def test_progress_has_rate_and_time_left(num_scored: int, text: str) -> None:
    assert _progress_text(progress(num_scored)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (61.0, "1 min 01 s"),
        (3599.9, "1 h 00 min"),
        (100_000.0, "27 h 46 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


# --- signals and kills, of a process whose model waits for a line each time ---


@contextlib.contextmanager
def gated(config: Path) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "curator.cli.__main__"]
    with subprocess.Popen(
        [*command, *call(config, model="gated")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def let(process: subprocess.Popen[str], num_forwards: int) -> None:
    """Lets the model be called a number of times, and waits for the next call."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "forward\n"
    for _ in range(num_forwards):
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "forward\n"


@pytest.mark.slow
def test_after_kills_the_files_are_those_of_a_whole_run(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = config.parent / "out"
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # the gate is open
    whole = config.parent / "whole"
    score(load_config(config), job(whole, model="gated"))

    # Inside of the first shard; and when the fourth is begun, which is after the first
    # has been written and while others are: two are scored ahead.
    for num_forwards in (2, 3 * NUM_FORWARDS):
        with gated(config) as process:
            let(process, num_forwards)
            process.send_signal(signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL
        for name in shards(out):
            assert (out / name).read_bytes() == (whole / name).read_bytes()
    num_ready = len(shards(out))
    report = score(load_config(config), job(out, model="gated"))

    assert 1 <= num_ready <= 3
    assert report.num_ready == 64 * num_ready
    assert contents(out) == contents(whole)


@pytest.mark.slow
def test_a_signal_lets_it_finish_its_file(config: Path) -> None:
    with gated(config) as process:
        let(process, 1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline() == "stopping after the file at hand\n"
        assert shards(config.parent / "out") == []

        out, errors = process.communicate("\n" * 100, timeout=60)

    assert process.returncode == 128 + signal.SIGTERM, errors
    assert out.endswith("  186 are left: run the same command again to continue\n")
    assert shards(config.parent / "out") == ["part-00000.parquet"]


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(config: Path) -> None:
    with gated(config) as process:
        let(process, 1)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline() == "stopping after the file at hand\n"
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=60) == -signal.SIGTERM

    assert shards(config.parent / "out") == []
