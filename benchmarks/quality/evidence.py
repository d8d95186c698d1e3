"""Writes ``docs/evidence.md`` and its pictures from the committed result.

    python -m benchmarks.quality.evidence [--result out/quality/result.json]

With ``--result`` the tasks of that file first take the place of the committed ones, so
that tasks can be run one by one. No number and no verdict in the page is written by
hand.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.arms import ARMS
from benchmarks.quality.claims import MARGIN, Verdict, judge, targets
from benchmarks.quality.lm_claims import DETAIL, detail
from benchmarks.quality.plan import FULL, SMOLLM2, learning_rates
from benchmarks.quality.plots import draw
from benchmarks.quality.summary import TITLE, Results, read, write
from benchmarks.report import Report

__all__ = ["page", "write_page"]

COMMITTED = Path(__file__).with_name("results.json")
DOCS = Path("docs")


def main() -> int:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--result", metavar="FILE", help="its tasks are committed")
    arguments = parser.parse_args()
    if arguments.result:
        commit(Path(arguments.result), COMMITTED)
    if not COMMITTED.exists():
        sys.exit(
            f"{COMMITTED} is missing: run  python -m benchmarks.quality, then this "
            "with  --result out/quality/result.json"
        )
    write_page(COMMITTED, DOCS)
    return 0


def commit(result: Path, committed: Path) -> None:
    """Puts the tasks of a result into the place of the same tasks of another."""
    _, new = read(result)
    runs = dict(read(committed)[1].by) if committed.exists() else {}
    runs = {key: by for key, by in runs.items() if key[0] not in new.tasks}
    order = [*FULL, *SMOLLM2]
    both = Results(
        dict(
            sorted({**runs, **new.by}.items(), key=lambda item: order.index(item[0][0]))
        )
    )
    write(committed, Report(TITLE, both.rows(), targets(both)), both)


def write_page(result: Path, docs: Path) -> None:
    """Writes ``evidence.md`` and ``evidence/*.png`` into a folder."""
    report, results = read(result)
    for task in results.tasks:
        draw(results, task, docs / "evidence" / f"{task}.png")
    (docs / "evidence.md").write_text(page(report, results))


def page(report: dict[str, Any], results: Results) -> str:
    """Returns the page."""
    verdicts = judge(results)
    machine = report["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    parts = [
        "# Evidence",
        "<!-- Written by `python -m benchmarks.quality.evidence`; do not edit. -->",
        _INTRO.format(num_seeds=_num_seeds(results)),
        (
            f"Machine: {machine['processor']}, {machine['cores']} cores, one of them "
            f"used, no GPU. {versions}."
        ),
        f"{ACCOUNTING}\n{_tuning(results)}",
        "## Targets",
        _table(
            ("target", "value", "goal", ""),
            (
                (t.name, f"{t.value:g} {t.unit}", t.goal, "met" if t.met else "NOT MET")
                for t in targets(results)
            ),
        ),
        "## What did not reproduce",
        _claims(
            [v for v in verdicts if v.holds is not True],
            "Nothing: every claim holds.",
        ),
        "## What did",
        _claims([v for v in verdicts if v.holds], "Nothing."),
        *(part for task in results.tasks for part in _task(results, task)),
        "## The arms",
        "\n".join(
            f"* `{name}`: {arm.what}."
            for name, arm in ARMS.items()
            if any(name in results.arms(task) for task in results.tasks)
        ),
    ]
    return "\n\n".join(parts) + "\n"


_INTRO = """\
Does choosing batches pay? Models trained through the public client, with {num_seeds}:
the same data, initial weights and seed of the batches for every arm of a seed. Made by
`python -m benchmarks.quality`, written by `python -m benchmarks.quality.evidence`;
every number and every verdict below is computed from
`benchmarks/quality/results.json`."""

ACCOUNTING = f"""## How to read it

* **Device-seconds** are CPU seconds of one core, split into *train* (the trainer's
  steps), *score* (forward passes over candidates, publishing weights, training a
  proxy), *pick* (the policy) and *reference* (what was trained or computed before the
  run: charged in full here, though it could serve many runs). What every arm pays
  alike, reading rows and the ledger (*serve*), is beside them and in none of them.
* **Wall s** is no measure of an arm here: the runs took turns with others on the same
  cores, and more at some times than at others. The quickstart compares seconds.
* **Equal steps**: scoring is free. **Equal device-seconds** (`_charged`): as many steps
  as the short uniform arm's train + score + pick buy. **Equal passes** (`_counted`): as
  many as its forward and backward passes buy, without what it costs to ship weights to
  a scorer, which for the smallest model is more than the model. The reference is in
  neither; it is in the tables.
* Every arm has a schedule of its own, a warm-up and a cosine to zero over the steps
  that it really has.
* Differences are paired by seed, with a 95 % t interval. *Holds*: the interval shows
  it. *Does not hold*: it shows the opposite. *Not shown*: neither. "Not better" is
  shown by an interval with zero in it or below; "the same" by one within
  ±{MARGIN * 100:g} points. Intervals are not corrected for how many claims there are.
* Final weights are measured, never the best of several."""


def _num_seeds(results: Results) -> str:
    """Says how many seeds there are, and which tasks have another number."""
    by_task = {task: len(results.seeds(task)) for task in results.tasks}
    most = statistics.mode(by_task.values())
    others = [f"{num} of `{task}`" for task, num in by_task.items() if num != most]
    return f"{most} paired seeds" + (f" ({', '.join(others)})" if others else "")


def _tuning(results: Results) -> str:
    """Says which tasks have learning rates that were tuned arm by arm."""
    rates = learning_rates()
    untuned = [f"`{task}`" for task in results.tasks if task not in rates]
    tuned = "* Learning rates are the best of the same few trials for every arm"
    if not untuned:
        return f"{tuned} (`learning_rates.json`)."
    return (
        f"{tuned} (`learning_rates.json`), but for {', '.join(untuned)}: there all "
        "arms share the middle of the grid, and nothing is tuned."
    )


def _claims(verdicts: Sequence[Verdict], none: str) -> str:
    if not verdicts:
        return none
    return _table(
        ("claim", "task", "compared", "at", "points", "verdict"),
        (
            (
                v.claim.says,
                v.task,
                f"`{v.claim.ours}` - `{v.claim.theirs}`",
                v.claim.axis,
                v.difference.text(100),
                v.word,
            )
            for v in verdicts
        ),
    )


_NOTES = {
    "smollm2": (
        "A short confirmation: 40 steps of a model of 135 million parameters. Each "
        "publishes 540 MB of weights to the scorer. The service kept them in memory "
        "(`TMPDIR=/dev/shm`); on a slow disk, *score* would be charged with the disk."
    )
}


def _task(results: Results, task: str) -> Iterable[str]:
    rows = [row for row in results.rows() if row["task"] == task]
    yield f"## {task}"
    yield f"![{task}: quality against device-seconds](evidence/{task}.png)"
    columns = [name for name in rows[0] if name not in ("task", "metric", "tail")]
    titles = {"mean": rows[0]["metric"], "tail mean": rows[0]["tail"]}
    yield _table(
        [str(titles.get(name, name)) for name in columns],
        ([_cell(row[name]) for name in columns] for row in rows),
    )
    first = next(iter(results.by[task, results.arms(task)[0]].values()))
    if task in _NOTES:
        yield _NOTES[task]
    yield (
        f"A backward pass costs {first['backward_ratio']:.2g} forward passes here, as "
        "measured."
    )
    referred = [arm for arm in results.arms(task) if arm in ("rho", "joint")]
    for arm in referred:
        reference = results.mean(task, arm, "reference")
        device = results.mean(task, arm, "device")
        yield (
            f"The reference of `{arm}` took {reference:.2g} device-seconds, "
            f"{reference / device:.0%} of one run's; n runs that share it pay an n-th "
            "each."
        )
    picked = detail(results, task)
    if picked:
        yield DETAIL
        cells = ([_cell(value) for value in row.values()] for row in picked)
        yield _table(list(picked[0]), cells)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    return f"`{value}`" if isinstance(value, str) else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
