"""The command: the epochs of real sessions again, and what a wrong call gets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import worlds
from scored import LOSS, configured, job

import curator
from curator.cli.__main__ import main
from curator.config import parse_sampler, sampler_to_table
from curator.offline import score
from curator.samplers import RePB, Run

NUM_EXAMPLES = 203
SIZE = 24


def config(folder: Path, sampler: dict[str, Any] | str, **session: Any) -> Path:
    """Writes a pool and a configuration with a session of a sampler."""
    table = worlds.pairs(NUM_EXAMPLES)
    table = table.append_column("half", pa.array(np.arange(NUM_EXAMPLES) % 2))
    with pa.ipc.new_file(folder / "pairs.arrow", table.schema) as writer:
        writer.write_table(table)
    body = {
        "pool": "pairs",
        "batch_size": 8,
        "super_batch_size": SIZE,
        "seed": 5,
        "num_epochs": 8,
        "sampler": sampler,
        "columns": [],
        **session,
    }
    path = folder / "server.toml"
    lines = [f"{key} = {_toml(value)}" for key, value in body.items()]
    path.write_text(
        '[pools.pairs]\nformat = "arrow"\npath = "pairs.arrow"\n[sessions.s]\n'
        + "\n".join(lines)
    )
    return path


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{k} = {_toml(v)}' for k, v in value.items())} }}"
    return json.dumps(value)


def losses_of(ids: np.ndarray, step: int) -> np.ndarray:
    """Losses that fall, some of them unknown."""
    losses = (0.1 + (ids * 37 % 101) / 50 / (1 + step / 9)).astype(np.float32)
    return np.where((ids + step) % 13 == 0, np.float32(np.nan), losses)


def trained(path: Path, num_steps: int) -> list[Any]:
    """Trains a session; returns the super-batch of each step."""
    offered: list[Any] = []
    with curator.local(path) as service:
        session = service.open("s")
        engine = service._transport._registry.open("s")
        for batch in session.batches():
            offered.append(engine.super_batch(batch.step, lambda: False))
            session.report(batch, loss=losses_of(batch.ids, batch.step))
            if batch.step == num_steps - 1:
                break
    return offered


def exported(folder: Path) -> Path:
    path = folder / "losses.parquet"
    state = str(folder / "curator-state")
    assert main(["inspect", state, "s", "--export", str(path)]) == 0
    return path


def assert_planned(path: Path, offered: list[Any]) -> None:
    """Asserts that a plan is what a session has offered in one epoch."""
    plan = pq.read_table(path)
    assert plan.column_names == ["step", "position", "example_id", "weight"]
    steps = plan["step"].to_numpy()
    assert np.unique(steps).tolist() == [each.step for each in offered]
    assert plan["position"].to_pylist() == list(range(SIZE)) * len(offered)
    ids = np.concatenate([each.ids for each in offered])
    weights = np.concatenate(
        [
            np.ones(SIZE, np.float32) if each.weights is None else each.weights
            for each in offered
        ]
    )
    np.testing.assert_array_equal(plan["example_id"], ids)
    np.testing.assert_array_equal(plan["weight"], weights)


SAMPLERS: list[dict[str, Any] | str] = [
    "uniform",
    {"name": "rs2", "ratio": 0.4},
    {"name": "rs2", "ratio": 0.4, "stratify_by": "half"},
    {"name": "infobatch", "prune_ratio": 0.5},
    {"name": "infobatch", "prune_ratio": [0.8, 0.3], "percentiles": [30.0, 70.0]},
    {"name": "repb"},
    {"name": "seta", "num_groups": 3, "window": 0.5, "prune_ratio": 0.1},
]


@pytest.mark.parametrize("session", [{}, {"max_ahead": 3, "weighting": "mean"}])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_a_plan_is_what_a_session_with_these_losses_offers(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sampler: dict[str, Any] | str,
    session: dict[str, Any],
) -> None:
    path = config(tmp_path, sampler, **session)
    offered = trained(path, 34)
    losses = exported(tmp_path)
    last = offered[-1].epoch

    assert last >= 3
    for epoch in range(last):  # the last one may not be whole
        out = tmp_path / f"plan-{epoch}.parquet"
        given = ["--session", "s", "--losses", str(losses), "--epoch", str(epoch)]
        assert main(["plan", "--config", str(path), *given, "--out", str(out)]) == 0
        assert_planned(out, [each for each in offered if each.epoch == epoch])
    assert f"epoch {last - 1} of " in capsys.readouterr().out


def test_without_epochs_in_the_file_they_are_those_of_the_sampler(
    tmp_path: Path,
) -> None:
    path = config(tmp_path, "repb", max_ahead=2)
    offered = trained(path, 30)
    table = pq.read_table(exported(tmp_path))
    losses = tmp_path / "steps.parquet"
    shuffled = table.select(["step", "example_id", "loss"])
    order = np.argsort(table["step"].to_numpy() % 7, kind="stable")
    pq.write_table(shuffled.take(pa.array(order)), losses)
    out = tmp_path / "plan.parquet"

    given = ["--session", "s", "--losses", str(losses), "--epoch", "2"]
    assert main(["plan", "--config", str(path), *given, "--out", str(out)]) == 0

    assert_planned(out, [each for each in offered if each.epoch == 2])


def plan(*arguments: str, out: Path | None = None) -> int:
    extra = [] if out is None else ["--out", str(out)]
    return main(["plan", *arguments, *extra])


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A folder of losses of 250 examples, of which three are NaN."""
    out = tmp_path / "scores"
    score(configured(tmp_path), job(out, outputs=LOSS))
    return out


def test_scores_are_losses_of_a_run_that_trains_on_every_candidate(
    tmp_path: Path, scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.parquet"
    given = ["--sampler", "repb", "--losses", str(scores), "--seed", "4"]
    assert plan(*given, "--epoch", "2", "--super-batch-size", "50", out=out) == 0

    known = pq.read_table(scores)["loss"].to_numpy()
    planner = RePB().start(Run(num_examples=250, super_batch_size=50, seed=4))
    for epoch in range(2):
        before = planner.plan(epoch)
        for start in range(0, before.num_examples // 50 * 50, 50):
            ids, _ = before.take(start, start + 50)
            planner.observe(ids, known[ids])
    wanted, weights = (last := planner.plan(2)).take(0, last.num_examples // 50 * 50)
    found = pq.read_table(out)
    np.testing.assert_array_equal(found["example_id"], wanted)
    np.testing.assert_array_equal(found["weight"], weights)
    assert "of 250 examples" in capsys.readouterr().out


def test_losses_by_epoch_are_those_of_its_examples(tmp_path: Path) -> None:
    """What an example had in the last epoch decides, whatever it had before."""
    ids = np.arange(100)
    low_first, low_last = ids < 50, ids >= 50
    table = pa.table(
        {
            "example_id": np.concatenate([ids, ids]),
            "epoch": np.repeat([0, 1], 100),
            "loss": np.concatenate([1.0 - low_first, 1.0 - low_last]),
        }
    )
    pq.write_table(table, tmp_path / "losses.parquet")
    outs = [tmp_path / f"{epoch}.parquet" for epoch in (1, 2)]

    for epoch, out in enumerate(outs, start=1):
        given = ["-o", "anneal=0.0", "--losses", str(tmp_path / "losses.parquet")]
        size = ["--super-batch-size", "10", "--epoch", str(epoch)]
        assert plan("--sampler", "infobatch", *given, *size, out=out) == 0

    first, second = (pq.read_table(out)["example_id"].to_numpy() for out in outs)
    # Half of the low losses are left out, and a few examples make no super-batch.
    assert np.count_nonzero(first < 50) <= 25
    assert np.count_nonzero(first >= 50) >= 45
    # Those that the first left out have no loss in its epoch: they keep the older one.
    assert np.count_nonzero(second >= 50) <= 25
    assert np.count_nonzero(second < 50) > np.count_nonzero(first < 50)


def test_the_summary_is_that_of_the_file(
    tmp_path: Path, scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.parquet"
    given = ["--sampler", "infobatch", "-o", "anneal=0.0", "--losses", str(scores)]
    sizes = ["--super-batch-size", "20", "--epoch", "1"]

    assert plan(*given, *sizes, "--json", out=out) == 0
    found = json.loads(capsys.readouterr().out)
    assert plan(*given, *sizes) == 0
    text = capsys.readouterr().out

    table = pq.read_table(out)
    ids, weights = table["example_id"].to_numpy(), table["weight"].to_numpy()
    assert found["num_examples"] == 250
    assert found["num_planned"] + found["num_left_out"] == 250
    assert found["num_steps"] * 20 == len(ids)
    assert found["num_not_offered"] == found["num_planned"] - len(ids)
    assert 240 - 3 <= found["num_losses"] <= 240  # 12 steps of 20, three NaN
    assert found["first_step"] == 250 // 20
    assert found["mean_weight"] == pytest.approx(weights.mean(dtype=np.float64))
    values, counts = np.unique(weights, return_counts=True)
    assert found["weights"] == [
        [value, count]
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    ]
    assert found["mean_loss"] > found["mean_loss_left_out"]
    assert found["num_gone"] > found["num_new"]
    assert found["num_bytes"] == out.stat().st_size
    assert f"planned    {found['num_planned']} of 250 examples" in text
    assert "weights    1 x " in text
    assert "changes    " in text


def test_the_same_call_writes_the_same_bytes(tmp_path: Path, scores: Path) -> None:
    outs = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for out in outs:
        given = ["--sampler", "seta", "-o", "anneal=0.0", "--losses", str(scores)]
        assert plan(*given, "--super-batch-size", "9", "--epoch", "3", out=out) == 0

    assert outs[0].read_bytes() == outs[1].read_bytes()
    said = json.loads(pq.read_schema(outs[0]).metadata[b"curator.plan"])
    assert said["sampler"]["name"] == "seta"
    assert (said["epoch"], said["seed"], said["super_batch_size"]) == (3, 0, 9)
    assert sampler_to_table(parse_sampler(said["sampler"])) == said["sampler"]


def test_options_change_the_sampler_of_a_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(config(tmp_path, {"name": "rs2", "ratio": 0.4}))
    given = ["--session", "s", "--epoch", "0", "--json"]

    assert plan("--config", path, *given) == 0
    before = json.loads(capsys.readouterr().out)
    assert (
        plan("--config", path, *given, "-o", "ratio=0.8", "--super-batch-size", "10")
        == 0
    )
    after = json.loads(capsys.readouterr().out)

    assert (before["num_planned"], before["super_batch_size"]) == (81, 24)
    assert (after["num_planned"], after["super_batch_size"]) == (162, 10)


def test_a_sampler_without_losses_plans_any_epoch_at_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--sampler", "rs2", "-o", "ratio=0.001", "--num-examples", "1000000"]
    assert plan(*given, "--epoch", "1000000", "--json") == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["num_planned"], found["first_step"]) == (1000, 3_000_000)
    assert found["num_losses"] is None


# --- what is wrong ---


def write(folder: Path, **columns: Any) -> str:
    path = folder / "losses.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


INFOBATCH = ["--sampler", "infobatch", "-o", "anneal=0.0"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [0], "loss": [0.1]}, "expected 'example_id'"),
        ({"example_id": np.empty(0, np.int64), "loss": np.empty(0)}, "no examples"),
        ({"example_id": [0], "los": [0.1]}, r"no numbers 'loss' \(did you mean 'los'"),
        (
            {"example_id": [0], "los": [0.1], "step": [0]},
            r"no column 'loss' \(did you mean 'los'\?\)",
        ),
        ({"example_id": [0, 0], "loss": [0.1, 0.2]}, "example 0 is there more than on"),
        (
            {"example_id": [0, 0], "loss": [0.1, 0.2], "step": [3, 3], "epoch": [0, 0]},
            "example 0 is there more than once in step 3",
        ),
        (
            {"example_id": [0, 0], "loss": [0.1, 0.2], "epoch": [0, 0]},
            "example 0 is there more than once in epoch 0",
        ),
        (
            {"example_id": [0, 1], "loss": [0.1, 0.2], "step": [0, 1], "epoch": [1, 0]},
            "a later step is of an earlier epoch",
        ),
        ({"example_id": [0], "loss": [0.1], "epoch": [1]}, "no losses of epoch 0; the"),
        (
            {"example_id": [0], "loss": [0.1], "step": [9], "epoch": [1]},
            "no losses of epoch 0; the plan of epoch 1 depends",
        ),
        ({"example_id": [0], "loss": [0.1], "step": [9]}, "begins with step 9"),
        (
            {"example_id": [0], "loss": [0.1], "step": [0]},
            "ends with step 0, and epoch 0 with step 9",
        ),
        ({"example_id": [0], "loss": ["a"], "step": [0]}, "'loss' is string; expected"),
        (
            {"example_id": [0], "loss": [0.1], "step": [0.5]},
            "'step' is double with 0 nulls; expected integers",
        ),
        (
            {"example_id": [-4], "loss": [0.1], "step": [0]},
            "'example_id' is -4 somewhere; expected at least 0",
        ),
        (
            {"example_id": [900], "loss": [0.1], "step": [0], "epoch": [0]},
            "losses: of example 900, and the pool has 100: they are of another",
        ),
    ],
)
def test_losses_that_cannot_be_are_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    columns: dict[str, Any],
    message: str,
) -> None:
    given = ["--losses", write(tmp_path, **columns), "--num-examples", "100"]

    assert plan(*INFOBATCH, *given, "--super-batch-size", "10", "--epoch", "1") == 1

    error = capsys.readouterr().err
    assert error.startswith("curator: ")
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


def empty(folder: Path) -> str:
    schema = pa.schema(
        {"example_id": pa.int64(), "loss": pa.float32(), "step": pa.int64()}
    )
    pq.write_table(schema.empty_table(), folder / "empty.parquet")
    return str(folder / "empty.parquet")


def test_other_wrong_calls_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(config(tmp_path, "uniform"))
    losses = write(tmp_path, example_id=[0, 7], loss=[0.1, 0.2])
    (tmp_path / "text.parquet").write_text("no Parquet")
    exists = tmp_path / "there.parquet"
    exists.touch()
    uniform = ["--sampler", "uniform", "--num-examples", "100"]
    small = ["--super-batch-size", "10"]
    calls: list[tuple[list[str], str]] = [
        (["--epoch", "0"], "sampler: name one, or a session that has one"),
        (["--sampler", "unifrom", "--epoch", "0"], "did you mean 'uniform'"),
        (["--sampler", "uniform", "--epoch", "0"], "how many the pool has is not"),
        (
            ["--sampler", "uniform", "-o", "ratio=1", "--epoch", "0"],
            "unknown key 'sampler.ratio'",
        ),
        (
            ["--sampler", "rs2", "-o", "name=uniform", "--epoch", "0"],
            "option 'name': --sampler says it",
        ),
        (
            ["--sampler", "rs2", "-o", "ratio=big", "--epoch", "0"],
            "sampler.ratio: expected a valid number; got 'big'",
        ),
        (
            ["--sampler", "rs2", "-o", "ratio=1.0", "-o", "ratio=0.5", "--epoch", "0"],
            "option 'ratio' is given more than once",
        ),
        (
            [*INFOBATCH, "--num-examples", "100", *small, "--epoch", "2"],
            "plans epoch 2 from the losses of those before it; give them",
        ),
        (
            ["--sampler", "infobatch", "--num-examples", "99", *small, "--epoch", "0"],
            "set num_epochs, or anneal = 0.0",
        ),
        (
            [*uniform[:3], "1" + 20 * "0", "--epoch", "0"],
            "num_examples: at most 281474976710656; got 1000000",
        ),
        ([*uniform, "--seed", str(2**63), "--epoch", "0"], "seed: a 64-bit integer"),
        ([*uniform, *small, "--epoch", "-1"], "epoch: at least 0; got -1"),
        (
            [*uniform, *small, "--epoch", "3", "--num-epochs", "3"],
            "epoch: below num_epochs = 3; got 3",
        ),
        (
            [*uniform, *small, "--epoch", "0", "--max-ahead", "-2"],
            "max_ahead: at least",
        ),
        ([*uniform, "--epoch", "0"], r"super_batch_size: in [1, 100]"),
        (
            [*uniform, *small, "--epoch", "0", "--out", str(exists)],
            "exists: delete it, or choose another name",
        ),
        (
            [*uniform, *small, "--epoch", "0", "--out", str(tmp_path / "no" / "p")],
            "cannot write ",
        ),
        (
            ["--session", "s", "--epoch", "0"],
            "session 's': name the configuration that has it",
        ),
        (["--config", path, "--session", "t", "--epoch", "0"], "no session 't'"),
        (
            ["--config", path, "--pool", "q", *uniform[:2], "--epoch", "0"],
            "no pool 'q'",
        ),
        (
            ["--pool", "q", *uniform[:2], "--epoch", "0"],
            "pool 'q': name the configuration that has it",
        ),
        (
            ["--config", path, "--session", "s", "--num-examples", "3", "--epoch", "0"],
            "pool 'pairs' says it itself; leave one of them out",
        ),
        (
            [
                *("--sampler", "rs2", "-o", "ratio=0.5", "-o", "stratify_by=half"),
                *("--num-examples", "100", *small, "--epoch", "0"),
            ],
            "reads half of it; give a configuration and a pool",
        ),
        (
            [
                *("--config", path, "--pool", "pairs", "--sampler", "rs2"),
                *("-o", "ratio=0.5"),
                *("-o", "stratify_by=third", *small, "--epoch", "0"),
            ],
            "sampler: pool 'pairs' has no 'third'",
        ),
        (
            [*uniform, "--losses", str(tmp_path / "none.parquet"), "--epoch", "0"],
            "none.parquet",
        ),
        (
            [*uniform, "--losses", str(tmp_path / "text.parquet"), "--epoch", "0"],
            "is not a whole Parquet file",
        ),
        (
            [*uniform, "--losses", empty(tmp_path), "--epoch", "0"],
            "no rows",
        ),
        (
            [*uniform, "--losses", losses, "--loss", "lss", "--epoch", "0"],
            "no numbers 'lss' (did you mean 'loss'?)",
        ),
    ]
    for call, message in calls:
        assert plan(*call) == 1, call
        error = capsys.readouterr().err
        assert error.startswith("curator: "), error
        assert message in error, error
        assert len(error.splitlines()) == 1, error


def test_losses_of_another_pool_are_refused(
    tmp_path: Path, scores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(config(tmp_path, {"name": "infobatch", "anneal": 0.0}))

    given = ["--session", "s", "--losses", str(scores), "--epoch", "1"]
    assert plan("--config", path, *given) == 1

    assert "losses: of a pool with the fingerprint " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["ratio", "=1", "  = 2"])
def test_an_option_without_a_value_is_a_wrong_call(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        plan("--sampler", "rs2", "-o", option, "--epoch", "0")

    assert caught.value.code == 2
    assert "expected KEY=VALUE; got" in capsys.readouterr().err


def test_values_of_options_are_tomls_or_words() -> None:
    from curator.cli.command import option

    assert option("percentiles = [20.0, 80.0]") == ("percentiles", [20.0, 80.0])
    assert option("replace=true") == ("replace", True)
    assert option("stratify_by=half") == ("stratify_by", "half")
    assert option('stratify_by="1"') == ("stratify_by", "1")
    assert option("a=1\nb=2") == ("a", "1\nb=2")
