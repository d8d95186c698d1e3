"""What commands show on stderr while they take their time."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from subsets import outputs_of, write_scores

import curator.progress
from curator.cli import progress
from curator.cli.__main__ import main
from curator.cli.progress import ProgressLine, progress_shown
from curator.config import load_config
from curator.offline import open_configured_pool

LONG_AGO = 10**18  # in 2001, in nanoseconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Makes stderr a terminal; not a fixture, because pytest sets it for each test."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    monkeypatch.setattr(progress, "_TERMINAL_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "40")
    return found


def test_a_terminal_shows_one_line_that_is_written_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_terminal(monkeypatch)
    line = ProgressLine()
    line.show("longer at first")
    line.show("shorter")
    line.end()

    first, second, cleared, end = terminal.getvalue().split("\r")[1:]
    assert (first, second) == ("longer at first", "shorter        ")
    assert cleared.strip() == end == ""


def test_what_is_longer_than_the_terminal_loses_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_terminal(monkeypatch)
    ProgressLine().show(f"/{30 * 'very-'}long.tar: 25 %")

    shown = terminal.getvalue().removeprefix("\r")
    assert len(shown) == 39
    assert shown.startswith("...")
    assert shown.endswith("-long.tar: 25 %")


@pytest.mark.parametrize(("every", "text"), [(0.0, "a\n"), (1e9, "")])
def test_a_log_gets_lines_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    every: float,
    text: str,
) -> None:
    monkeypatch.setattr(progress, "_LOG_SECONDS", every)
    line = ProgressLine()
    line.show("a")
    line.end()

    assert capsys.readouterr().err == text


def test_the_logger_is_as_it_was_before() -> None:
    logger = logging.getLogger("curator.progress")
    before = (logger.level, list(logger.handlers))

    with contextlib.suppress(KeyError), progress_shown():
        raise KeyError

    assert (logger.level, list(logger.handlers)) == before


def test_a_stderr_that_nobody_reads_does_not_fail_a_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(Terminal):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    monkeypatch.setattr(progress, "_TERMINAL_SECONDS", 0.0)

    with progress_shown():
        logging.getLogger("curator.progress").info("a")


# --- commands that open a pool of JSON lines for the first time ---


MODEL = """
import torch


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 16)

    def forward(self, batch):
        return self.layer(batch["number"].float()[:, None])
"""


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A pool of several megabytes, its configuration, and scores of it."""
    path = tmp_path / "data.jsonl"
    rows = [{"label": i % 5, "text": 3000 * "x", "number": i / 8} for i in range(1200)]
    path.write_text("\n".join(map(json.dumps, rows)))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    config = tmp_path / "server.toml"
    (tmp_path / "model_of_numbers.py").write_text(MODEL)
    config.write_text(
        """
        [server]
        python_path = ["."]
        [pools.p]
        format = "jsonl"
        path = "data.jsonl"
        [models.classes]
        kind = "classifier"
        factory = "model_of_numbers:Model"
        columns = ["number"]
        label = "label"
        [sessions.s]
        pool = "p"
        batch_size = 8
        """
    )
    with open_configured_pool(load_config(config), "p") as pool:
        fingerprint = pool.fingerprint
        outputs = outputs_of(0, pool.num_examples)
    for name in ("entropy", "grad_norm", "nuclear_norm", "num_tokens", "projection"):
        del outputs[name]
    shutil.rmtree(tmp_path / "curator-state")
    scores = tmp_path / "scores"
    write_scores(scores, outputs, pool=fingerprint, shard_size=1200)
    policy = ["--policy", "topk", "-o", "score=loss", "--num-selected", "1100"]
    small = ["--out", str(tmp_path / "small.parquet"), "--json"]
    assert main(["select", str(scores), *policy, *small]) == 0
    return tmp_path


COMMANDS = {
    "select": (
        *("select", "{}/scores", "--where", "label != 3"),
        *("--out", "{}/subset.parquet"),
    ),
    "report": ("report", "{}/scores", "--out", "{}/page", "--text", "text"),
    "plan": (
        *("plan", "--sampler", "rs2", "-o", "ratio=0.5", "-o", "stratify_by=label"),
        *("--epoch", "0"),
    ),
    "batches": (
        *("plan", "--batches", "b3", "--scores", "{}/scores", "--batch-size", "1024"),
        *("--epoch", "0", "--subset", "{}/small.parquet", "-o", "label=label"),
    ),
    "score": (
        *("score", "{}/server.toml", "--model", "classes", "--out", "{}/new"),
        *("--limit", "4"),
    ),
}


def call(name: str, folder: Path) -> list[str]:
    words = [word.format(folder) for word in COMMANDS[name]]
    config = [] if name == "score" else ["--config", str(folder / "server.toml")]
    return [*words, *config, "--pool", "p", "--json"]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_pool_that_takes_a_while_is_told_on_stderr(
    world: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    capsys.readouterr()
    monkeypatch.setattr(curator.progress, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)

    assert main(call(name, world)) == 0

    streams = capsys.readouterr()
    assert json.loads(streams.out)
    lines = streams.err.splitlines()
    made = [line for line in lines if line.startswith("jsonl.arrow of ")]
    assert len(made) >= 3
    assert " % of 0.0" in made[0]
    assert made[-1].endswith(" s")
    assert any(line.startswith("fingerprint of ") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_pool_that_is_quick_is_not_told(
    world: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    capsys.readouterr()

    assert main(call(name, world)) == 0

    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_serve_logs_it(world: Path) -> None:
    code = (
        "import sys; from curator import progress;"
        "from curator.cli.__main__ import main;"
        "progress._EVERY_SECONDS = 0.0;"
        f"main(['serve', {str(world / 'server.toml')!r}, '--listen', '127.0.0.1:0'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "listening on" in process.stdout.readline()
        process.terminate()
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "INFO curator.progress: jsonl.arrow of " in errors
    assert "INFO curator.pools: jsonl.arrow of " in errors
