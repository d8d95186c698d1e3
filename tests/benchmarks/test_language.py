"""The instruction task: what is supervised, what a pool has, and equal lengths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.quality import instructions
from benchmarks.quality.assets import Assets
from benchmarks.quality.claims import judge, targets
from benchmarks.quality.instructions import DOMAINS, LENGTH, Pairs, encode
from benchmarks.quality.lm import (
    BUCKETS,
    byte_lm,
    log_likelihood,
    make_pool,
    response_loss,
)
from benchmarks.quality.lm import instructions as instructions_task
from benchmarks.quality.lm_claims import detail
from benchmarks.quality.lm_recipes import equal_tokens, lengths_of, rows_like, uds
from benchmarks.quality.recipes import Setting
from benchmarks.quality.summary import Results
from benchmarks.quality.task import Data


def some_pairs(count: int) -> Pairs:
    rng = np.random.default_rng(0)
    coded = [
        encode(f"prompt {i}", f"{i:03d}" + "x" * rng.integers(1, 100))
        for i in range(count)
    ]
    tokens, mask = (np.stack(part) for part in zip(*filter(None, coded), strict=True))
    return Pairs(tokens, mask, np.arange(count) % 9)


def test_the_response_and_its_end_are_supervised() -> None:
    coded = encode("ab", "cé")
    assert coded is not None
    tokens, mask = coded
    assert bytes(tokens[:7]) == b"ab\nc" + "é".encode() + b"\0"
    assert mask[:8].tolist() == [0, 0, 0, 1, 1, 1, 1, 0]
    assert mask.sum() == 4
    assert len(tokens) == len(mask) == LENGTH


@pytest.mark.parametrize("response", ["", "x" * LENGTH])
def test_pairs_without_a_response_or_too_long_are_left_out(response: str) -> None:
    assert encode("prompt", response) is None


def test_losses_are_means_over_supervised_bytes() -> None:
    torch.manual_seed(0)
    model, pairs = byte_lm(), some_pairs(3)
    batch = {n: torch.from_numpy(getattr(pairs, n)) for n in ("tokens", "mask")}
    outputs = model(batch)
    losses = response_loss(outputs, batch)
    log_probs = torch.log_softmax(outputs["hidden"] @ outputs["head"].T, dim=2)
    for row, loss in enumerate(losses):
        at = np.flatnonzero(pairs.mask[row])
        own = [log_probs[row, t - 1, int(pairs.tokens[row, t])] for t in at]
        torch.testing.assert_close(loss, -torch.stack(own).mean())


def test_the_model_sees_no_later_byte() -> None:
    torch.manual_seed(0)
    model, tokens = byte_lm().eval(), torch.full((1, LENGTH), 7)
    changed = tokens.clone()
    changed[0, 60] = 9
    before, after = (model({"tokens": t})["hidden"][0] for t in (tokens, changed))
    torch.testing.assert_close(before[:60], after[:60])
    assert not torch.allclose(before[60], after[60])


def test_four_fifths_of_a_pool_of_repeats_are_of_twenty_pairs() -> None:
    rng = np.random.default_rng(1)
    pool = make_pool(some_pairs(800), np.arange(800), "repeats", rng)
    assert pool["repeat"].mean() == pytest.approx(0.8, abs=0.05)
    assert len(np.unique(pool["tokens"][pool["repeat"]], axis=0)) == 20
    assert len(np.unique(pool["tokens"][~pool["repeat"]], axis=0)) > 120


def test_noise_gives_some_prompts_the_response_of_another() -> None:
    pairs = some_pairs(400)
    pool = make_pool(pairs, np.arange(400), "noise", np.random.default_rng(1))
    differs = (pool["tokens"] != pairs.tokens).any(axis=1)
    assert differs.tolist() == pool["wrong"].tolist()
    assert pool["wrong"].mean() == pytest.approx(0.1, abs=0.05)
    for row in np.flatnonzero(differs):
        start = int(pairs.mask[row].argmax())
        assert (pool["tokens"][row, :start] == pairs.tokens[row, :start]).all()
        other = int(bytes(pool["tokens"][row, start : start + 3]))
        assert other != row


def test_every_example_is_in_the_bucket_of_its_length() -> None:
    pool = make_pool(some_pairs(50), np.arange(50), "", np.random.default_rng(1))
    assert (pool["length"] == pool["mask"].sum(axis=1)).all()
    marked = np.stack([pool[name] for name in BUCKETS])
    assert (marked.sum(axis=0) == 1).all()
    assert (marked.argmax(axis=0) == (pool["length"] - 1) // 8).all()


def test_drawn_rows_have_the_shares_that_were_asked_for() -> None:
    rng = np.random.default_rng(2)
    buckets = rng.integers(0, 4, 500)
    shares = np.array([0.0, 0.25, 0.7, 0.05])
    rows = rows_like(shares, buckets, 400, rng)
    assert np.bincount(buckets[rows], minlength=4).tolist() == [0, 100, 280, 20]


def test_no_row_is_drawn_twice_before_its_bucket_is_used_up() -> None:
    buckets = np.array([0] * 10 + [1] * 30)
    rows = rows_like(np.array([0.5, 0.5]), buckets, 50, np.random.default_rng(3))
    times = np.bincount(rows, minlength=40)
    assert set(times[:10]) <= {2, 3}
    assert set(times[10:]) <= {0, 1}


def test_drawn_rows_are_in_no_order_of_lengths() -> None:
    buckets = np.repeat([0, 1], 500)
    rows = rows_like(np.array([0.5, 0.5]), buckets, 400, np.random.default_rng(4))
    assert 60 < buckets[rows][:200].sum() < 140


def test_held_out_losses_do_not_depend_on_how_they_are_batched() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(5)
    model, pool = byte_lm(), make_pool(some_pairs(90), np.arange(90), "", rng)
    batch = {n: torch.from_numpy(pool[n]) for n in ("tokens", "mask")}
    losses = response_loss(model(batch), batch).detach().numpy()
    means = [losses[pool["domain"] == i].mean() for i in range(len(DOMAINS))]
    found = log_likelihood(model, pool)
    assert found["log_likelihood"] == pytest.approx(-np.mean(means), rel=1e-5)
    assert found["define"] == pytest.approx(-means[0], rel=1e-5)
    assert found["rare"] == pytest.approx(-np.mean(means[6:]), rel=1e-5)


def a_run(arm: str, seed: int, quality: float, length: float) -> dict[str, Any]:
    shares = dict.fromkeys(BUCKETS, 0.0) | {"length_2": 0.25, "length_9": 0.75}
    return {
        "task": "instructions",
        "arm": arm,
        "seed": seed,
        "learning_rate": 0.1,
        "backward_ratio": 1.5,
        "steps": 40,
        "examples": 640,
        "seconds": dict.fromkeys(["train", "score", "pick", "serve", "reference"], 1.0),
        "wall": 9.0,
        "stall": 0.0,
        "metrics": {"log_likelihood": quality, "rare": quality - 1, "define": quality},
        "curve": [],
        "cost": {},
        "diagnostics": {"length": length, "repeat": 0.8, "wrong": 0, "rare": 0.1}
        | shares,
    }


def a_setting(folder: Path, runs: dict[str, dict[str, Any]]) -> Setting:
    task = instructions_task()
    pool = make_pool(some_pairs(300), np.arange(300), "", np.random.default_rng(1))
    assets = Assets(task, 0, Data(pool, pool, pool), 0.1, folder)
    return Setting(task, 0, assets, runs.__getitem__, 1.5)


def test_equal_tokens_are_half_the_steps_for_twice_the_length(tmp_path: Path) -> None:
    runs = {
        "uds": a_run("uds", 0, -2.0, 48.0),
        "uniform": a_run("uniform", 0, -2.0, 24.0),
    }
    recipe = equal_tokens(uds, "uds", "uniform", a_setting(tmp_path, runs))
    assert recipe.spec.num_steps == 20
    assert recipe.spec.policy == uds(a_setting(tmp_path, runs)).spec.policy


def test_the_control_has_the_lengths_and_steps_of_what_it_controls(
    tmp_path: Path,
) -> None:
    setting = a_setting(tmp_path, {"uds": a_run("uds", 0, -2.0, 60.0)})
    recipe = lengths_of("uds", setting)
    pool = setting.assets.data.train
    assert recipe.rows is not None
    assert len(recipe.rows) == 640
    assert pool["length_2"][recipe.rows].mean() == 0.25
    assert pool["length_9"][recipe.rows].mean() == 0.75
    assert recipe.spec.num_steps == 40
    assert recipe.spec.learner is None


def results_where_the_control_is(better_by: float) -> Results:
    runs: list[dict[str, Any]] = []
    for seed, noise in enumerate((0.0, 0.01, 0.02)):
        for arm, quality in (
            ("uniform", -2.5),
            ("uds_tokens", -2.0),
            ("uds_lengths_tokens", -2.0 + better_by),
        ):
            extra = noise if arm == "uds_tokens" else 0.0
            runs.append(a_run(arm, seed, quality + extra, 48.0))
    return Results.of(runs)


@pytest.mark.parametrize(("better_by", "met"), [(-0.2, True), (0.2, False)])
def test_the_verdict_on_uds_follows_its_control(better_by: float, met: bool) -> None:
    results = results_where_the_control_is(better_by)
    by_name = {target.name: target for target in targets(results)}
    (control,) = (t for name, t in by_name.items() if "of its lengths" in name)
    (random,) = (t for name, t in by_name.items() if "beats random," in name)
    assert control.met is met
    assert random.met
    (verdict,) = (v for v in judge(results) if v.claim.theirs == "uds_lengths_tokens")
    assert verdict.holds is met


def test_details_are_for_language_models_only() -> None:
    results = results_where_the_control_is(0.0)
    rows = detail(results, "instructions")
    assert rows[0]["arm"] == "uniform"
    assert rows[0]["tokens"] == 640 * 48
    assert rows[0]["define loss"] == 2.5
    other = a_run("uniform", 0, 0.9, 1.0) | {"metrics": {"accuracy": 0.9, "rare": 0.5}}
    assert detail(Results.of([other]), "instructions") == []


def test_missing_pairs_end_the_program_and_name_the_set_up_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instructions, "PATH", tmp_path / "none.parquet")
    with pytest.raises(
        SystemExit, match=r"python -m benchmarks\.quality\.instructions"
    ):
        instructions.read_pairs(is_test=True)
