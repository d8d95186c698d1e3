"""The quality benchmark: its statistics, its schedule, its store and its page."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import struct
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import data, plan
from benchmarks.quality.arms import ARMS
from benchmarks.quality.assets import k_center
from benchmarks.quality.checks import checks
from benchmarks.quality.claims import holds, judge, targets
from benchmarks.quality.evidence import commit, page, write_page
from benchmarks.quality.mixture import load, mixture
from benchmarks.quality.runs import Store, make
from benchmarks.quality.stats import Difference, paired, t_quantile
from benchmarks.quality.summary import Results, read, write
from benchmarks.quality.train import progress_after, schedule
from benchmarks.report import Report
from curator import SessionSpec


def a_run(arm: str, seed: int, accuracy: float, **other: Any) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "rare": accuracy / 2}
    seconds = {"train": 2.0, "score": 1.0, "pick": 0.5, "serve": 9.0, "reference": 4.0}
    return {
        "task": "mixture",
        "arm": arm,
        "seed": seed,
        "learning_rate": 0.1,
        "backward_ratio": 1.5,
        "steps": 100,
        "examples": 12_800,
        "seconds": seconds,
        "wall": 13.0,
        "stall": 0.25,
        "metrics": metrics,
        "curve": [
            {"step": 50, "device": 1.75, **{k: v - 0.1 for k, v in metrics.items()}},
            {"step": 100, "device": 3.5, **metrics},
        ],
        "cost": {"num_learner_scored": 7.0, "scoring_seconds": 1.0},
        "diagnostics": {"wrong": 0.125},
        **other,
    }


def results_of(**gains: float) -> Results:
    """Runs of three seeds, each arm so many points above 80 %."""
    saved = {"infobatch", "infobatch_no_rescale", "random_equal", "uniform_equal"}
    return Results.of(
        a_run(
            arm,
            seed,
            0.8 + gain / 100 + 0.001 * seed,
            **({"examples": 8_000} if arm in saved else {}),
        )
        for arm, gain in gains.items()
        for seed in range(3)
    )


AS_PAPERS_SAY = {
    "full": 5.0,
    "infobatch": 5.0,
    "infobatch_no_rescale": 4.5,
    "random_equal": 4.5,
    "rs2": 12.0,
    "static_random": 1.0,
    "static_k_center": 0.5,
    "static_el2n": -9.0,
    "uniform": 2.0,
    "rho": 4.0,
    "rho_charged": -1.0,
    "rho_counted": -1.0,
    "selective_backprop": 3.0,
    "selective_backprop_charged": 1.0,
    "selective_backprop_counted": 1.0,
    "rho_cheap": 3.0,
    "rho_cheap_charged": 2.5,
    "rho_cheap_counted": 2.5,
    "placebo": 2.0,
    "service_random": 2.0,
}


# --- statistics -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [
        (1, 12.7062),
        (2, 4.30265),
        (3, 3.18245),
        (4, 2.77645),
        (9, 2.26216),
        (30, 2.042272),
    ],
)
def test_t_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-5)


@pytest.mark.parametrize(("probability", "freedom"), [(0.4, 3), (1.0, 3), (0.9, 0)])
def test_t_quantile_outside_its_domain_is_refused(
    probability: float, freedom: int
) -> None:
    with pytest.raises(ValueError, match=r"expected 0\.5 <= p < 1 and freedom >= 1"):
        t_quantile(probability, freedom)


def test_paired_interval_is_the_one_worked_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 4.30265.
    found = paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])

    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.30265 / 3**0.5, rel=1e-5)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert not found.above_zero


def test_one_pair_shows_nothing() -> None:
    found = paired([2.0], [1.0])

    assert (found.mean, found.low, found.high) == (1.0, -np.inf, np.inf)
    assert not found.within(100)
    assert found.text(100) == "+100.00"


def test_unequal_numbers_of_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="as many of ours as of theirs; got 2, 1"):
        paired([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("kind", "low", "high", "expected"),
    [
        ("better", 0.1, 0.2, True),
        ("better", -0.1, 0.2, None),
        ("better", -0.2, -0.1, False),
        ("worse", -0.2, -0.1, True),
        ("not better", -0.1, 0.2, True),
        ("not better", 0.1, 0.2, False),
        ("same", -0.002, 0.002, True),
        ("same", -0.002, 0.004, None),
        ("same", 0.004, 0.006, False),
    ],
)
def test_verdict_is_what_the_interval_shows(
    kind: Any, low: float, high: float, expected: bool | None
) -> None:
    assert holds(kind, Difference((low + high) / 2, low, high, 5)) is expected


# --- the trainer ----------------------------------------------------------------------


def test_schedule_warms_up_and_ends_at_zero() -> None:
    assert schedule(0.0) == 0.0
    assert schedule(1.0) == pytest.approx(0.0)
    rates = [schedule(p) for p in np.linspace(0.1, 1.0, 50)]
    assert rates == sorted(rates, reverse=True)
    assert max(schedule(p) for p in np.linspace(0, 1, 1001)) == schedule(0.1)


@dataclasses.dataclass
class FakeStep:
    step: int
    epoch: int
    epoch_first_step: int
    epoch_num_steps: int


def test_progress_ends_at_one_however_long_the_epochs_are() -> None:
    spec = SessionSpec(pool="p", batch_size=1, num_epochs=3)
    first = 0
    seen: list[float] = []
    for epoch, size in enumerate((10, 4, 7)):
        for step in range(first, first + size):
            batch: Any = FakeStep(step, epoch, first, size)
            seen.append(progress_after(batch, spec, 1))
        first += size

    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert seen[9] == pytest.approx(1 / 3)  # an epoch counts as one, pruned or not


def test_progress_of_a_counted_run_is_its_share_of_steps() -> None:
    spec = SessionSpec(pool="p", batch_size=1, num_steps=8)
    batch: Any = FakeStep(3, 0, 0, 100)

    assert progress_after(batch, spec, 1) == 0.5


def test_k_center_takes_the_points_that_are_far_apart() -> None:
    points = np.array([[0.0, 0], [0.1, 0], [10, 0], [10, 0.1], [0, 10]], np.float32)

    chosen = set(k_center(points, 3).tolist())

    assert 4 in chosen
    assert len(chosen & {0, 1}) == len(chosen & {2, 3}) == 1


def test_k_center_never_takes_a_point_twice() -> None:
    points = np.zeros((6, 2), np.float32)

    assert sorted(k_center(points, 6).tolist()) == list(range(6))


# --- tasks and plans ------------------------------------------------------------------


def test_mixture_is_a_function_of_its_seed() -> None:
    a, b, c = load(0.1, 3), load(0.1, 3), load(0.1, 4)

    for name, values in a.train.items():
        np.testing.assert_array_equal(values, b.train[name])
    assert (a.train["x"] != c.train["x"]).any()
    assert a.train["wrong"].mean() == pytest.approx(0.1, abs=0.01)
    assert "wrong" not in a.test


def test_noise_changes_labels_and_nothing_else() -> None:
    clean, noisy = load(0.0, 0), load(0.1, 0)

    np.testing.assert_array_equal(clean.train["x"], noisy.train["x"])
    changed = clean.train["label"] != noisy.train["label"]
    np.testing.assert_array_equal(changed, noisy.train["wrong"])


@pytest.mark.parametrize("task", plan.FULL)
def test_every_arm_comes_after_those_it_needs(task: str) -> None:
    order = plan.in_order(plan.FULL[task][1])

    for position, arm in enumerate(order):
        assert set(ARMS[arm].after) <= set(order[:position])


def test_a_runs_key_says_what_its_result_depends_on() -> None:
    task = mixture()
    keys = {
        plan.job(*arguments).key
        for arguments in (
            (task, "rho", 0, {}),
            (task, "rho", 1, {}),
            (task, "uniform", 0, {}),
            (mixture(0.1), "rho", 0, {}),
            (task, "rho", 0, {"mixture": {"rho": 0.5}}),
            (task, "rho", 0, {"mixture": {"uniform": 0.5}}),  # the reference's
            (dataclasses.replace(task, short_steps=5), "rho", 0, {}),
        )
    }

    assert len(keys) == 7
    assert plan.job(task, "rho", 0, {}).key == plan.job(mixture(), "rho", 0, {}).key


def test_an_arm_is_run_again_when_one_that_it_needs_has_changed() -> None:
    before = plan.job(mixture(), "random_equal", 0, {})
    after = plan.job(mixture(), "random_equal", 0, {"mixture": {"infobatch": 0.5}})

    assert before.learning_rate == after.learning_rate
    assert before.key != after.key


def test_idx_file_is_read_and_a_wrong_one_refused(tmp_path: Any) -> None:
    path = tmp_path / "x.gz"
    values = np.arange(6, dtype=np.uint8)
    header = struct.pack(">HBBII", 0, 8, 2, 2, 3)
    path.write_bytes(gzip.compress(header + values.tobytes()))
    np.testing.assert_array_equal(data.read_idx(path), values.reshape(2, 3))

    path.write_bytes(gzip.compress(struct.pack(">HBBII", 0, 13, 2, 2, 3)))
    with pytest.raises(ValueError, match="not an IDX file of unsigned bytes"):
        data.read_idx(path)


def test_without_apt_the_data_step_says_where_to_put_what(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"no apt-get here.*dataset-fashion-mnist"):
        data.main()


def test_without_data_the_benchmark_names_the_data_step(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not data.is_there()
    with pytest.raises(SystemExit, match=r"run  python -m benchmarks\.quality\.data"):
        data.read_part("train")


# --- results --------------------------------------------------------------------------


def test_finished_run_is_read_back_and_not_made_again(tmp_path: Any) -> None:
    store = Store(tmp_path)
    job = plan.job(mixture(), "full", 0, {})
    kept = a_run("full", 0, 0.5)
    store.put(job, kept)

    assert make(job, store) == kept
    assert not (tmp_path / "assets").exists()  # nothing was trained
    assert store.get(plan.job(mixture(), "full", 1, {})) is None


def test_signs_pass_where_they_are_as_the_papers_say() -> None:
    found = checks(results_of(**AS_PAPERS_SAY))

    assert [check.says for check in found if not check.passed] == []


@pytest.mark.parametrize(
    ("arm", "points", "says"),
    [
        ("infobatch", 3.0, "InfoBatch is within a point of full training"),
        ("static_random", 13.0, "RS2 is above static_random"),
        ("rho", 1.0, "RHO-LOSS gains where scoring is free"),
        ("rho_charged", 3.0, "RHO-LOSS gains nothing at equal device-seconds"),
        ("selective_backprop_counted", 3.0, "Backprop gains nothing at equal passes"),
        ("placebo", 3.5, "shuffling the scores"),
    ],
)
def test_wrong_sign_is_caught(arm: str, points: float, says: str) -> None:
    found = checks(results_of(**{**AS_PAPERS_SAY, arm: points}))

    assert any(says in check.says for check in found if not check.passed)


def test_targets_follow_the_numbers() -> None:
    good = targets(results_of(**AS_PAPERS_SAY))
    bad = targets(results_of(**{**AS_PAPERS_SAY, "infobatch": 2.0, "rho": 1.0}))

    assert all(target.met for target in good)
    missed = [target.name for target in bad if not target.met]
    assert any("InfoBatch minus full" in name for name in missed)
    assert any("rho, scoring free" in name for name in missed)


def test_page_says_plainly_what_did_not_reproduce(tmp_path: Any) -> None:
    results = results_of(**{**AS_PAPERS_SAY, "rho_charged": 3.0})
    report = Report("tiny", results.rows(), targets(results))
    path = tmp_path / "results.json"
    write(path, report, results)
    write_page(path, tmp_path / "docs")
    text = (tmp_path / "docs" / "evidence.md").read_text()

    failed, _, held = text.partition("## What did\n")
    failed = failed.partition("## What did not reproduce")[2]
    assert "| RHO-LOSS does not pay | mixture | `rho_charged` - `uniform` |" in failed
    assert "+1.00 [+1.00, +1.00] | does not hold |" in failed
    assert "| RHO-LOSS helps, scoring free |" in held
    assert "NOT MET" in text
    assert "with 3 paired seeds:\nthe same data" in text
    assert (tmp_path / "docs" / "evidence" / "mixture.png").stat().st_size > 1000


def test_result_takes_the_place_of_its_tasks_only(tmp_path: Any) -> None:
    def renamed(results: Results, task: str, num_seeds: int) -> Results:
        return Results(
            {
                (task, arm): {
                    seed: {**run, "task": task}
                    for seed, run in list(by.items())[:num_seeds]
                }
                for (_, arm), by in results.by.items()
            }
        )

    committed, result = tmp_path / "committed.json", tmp_path / "result.json"

    def committing(results: Results) -> list[tuple[str, int]]:
        write(result, Report("tiny", results.rows(), []), results)
        commit(result, committed)
        found = read(committed)[1]
        return [(task, len(found.seeds(task))) for task in found.tasks]

    results = results_of(**AS_PAPERS_SAY)
    assert committing(renamed(results, "smollm2", 1)) == [("smollm2", 1)]
    assert committing(results) == [("mixture", 3), ("smollm2", 1)]
    fashion = renamed(results, "fashion", 3)
    assert committing(fashion) == [("mixture", 3), ("fashion", 3), ("smollm2", 1)]
    assert committing(renamed(results, "mixture", 2))[0] == ("mixture", 2)
    write_page(committed, tmp_path / "docs")
    text = (tmp_path / "docs" / "evidence.md").read_text()
    assert "with 2 paired seeds (3 of `fashion`, 1 of `smollm2`):\nthe" in text
    assert json.loads(committed.read_text())["targets"]


def test_page_is_the_same_from_the_same_result(tmp_path: Any) -> None:
    results = results_of(**AS_PAPERS_SAY)
    path = tmp_path / "results.json"
    write(path, Report("tiny", results.rows(), []), results)
    report = json.loads(path.read_text())

    again = Results.of(report.pop("runs"))

    assert [verdict.word for verdict in judge(again)] == [
        verdict.word for verdict in judge(results)
    ]
    assert page(report, again) == page(report, results)


def test_seconds_to_a_level_count_what_was_spent_before() -> None:
    results = results_of(rs2=3.0)

    assert results.seconds_to("mixture", "rs2", 0.72) == 1.75 + 4
    assert results.seconds_to("mixture", "rs2", 0.82) == 3.5 + 4
    assert results.seconds_to("mixture", "rs2", 0.99) is None


# --- the whole ------------------------------------------------------------------------


def few(seed: int) -> Any:
    all_ = load(0.0, seed)
    return type(all_)(
        {name: values[:800] for name, values in all_.train.items()},
        {name: values[:400] for name, values in all_.holdout.items()},
        {name: values[:400] for name, values in all_.test.items()},
    )


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["random_equal", "rho_cheap_counted", "placebo"])
def test_tiny_arm_runs_through_the_service_and_is_resumed(
    tmp_path: Any, arm: str
) -> None:
    task = dataclasses.replace(
        mixture(),
        load=functools.partial(few),
        batch_size=16,
        super_batch_size=64,
        num_epochs=2,
        short_steps=12,
        reference_epochs=1,
    )
    store = Store(tmp_path)
    job = plan.job(task, arm, 0, {})

    result = make(job, store)

    assert result == store.get(job)
    assert result["examples"] == 16 * result["steps"]
    assert len(result["curve"]) == min(10, result["steps"])
    assert result["curve"][-1]["step"] == result["steps"]
    if arm == "random_equal":  # the others are over before anything is learnt
        assert result["metrics"]["accuracy"] > 0.15  # chance is a tenth
    device = [point["device"] for point in result["curve"]]
    assert device == sorted(device)
    assert all(store.get(needed) is not None for needed in job.after)
    stamp = store.path(job).stat().st_mtime_ns
    assert make(job, store) == result
    assert store.path(job).stat().st_mtime_ns == stamp
