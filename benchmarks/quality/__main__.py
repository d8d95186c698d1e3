"""Does choosing batches pay? Trained models, paired seeds, every cost counted.

    python -m benchmarks.quality --quick      # minutes; exits 1 when a sign is wrong
    python -m benchmarks.quality [--tasks emoji smollm2]

The full run takes hours, may be stopped at any time, and goes on where it was. Then
``python -m benchmarks.quality.evidence`` writes ``docs/evidence.md``.
"""

import os

# Before NumPy is imported: BLAS threads that spin would be counted as work.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.quality import instructions, plan, smollm2
from benchmarks.quality.checks import checks
from benchmarks.quality.claims import targets
from benchmarks.quality.data import is_there
from benchmarks.quality.runner import OUT, make_all, warm_up
from benchmarks.quality.runs import Job, Store
from benchmarks.quality.summary import TITLE, Results, write
from benchmarks.report import Report


def main() -> int:
    """Runs what is missing, prints the table and writes the results."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one task, three seeds, and assert the signs",
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        choices=[*plan.FULL, *plan.SMOLLM2],
        default=list(plan.FULL),
        help="all but smollm2, which needs requirements-smollm2.txt, by default",
    )
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="5 by default, 3 of smollm2"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    names = list(plan.QUICK) if arguments.quick else arguments.tasks
    if any(name.startswith("fashion") for name in names) and not is_there():
        sys.exit(
            "Fashion-MNIST is missing: run  python -m benchmarks.quality.data  first, "
            "or leave it out:  --tasks mixture mixture-noise emoji"
        )
    if any(name.startswith(("instructions", "smollm2")) for name in names):
        instructions.check()
    if "smollm2" in names:
        smollm2.check()
    store = Store(OUT / "quick" if arguments.quick else OUT)
    warm_up()
    if arguments.quick:
        todo = list(plan.jobs(plan.QUICK, plan.QUICK_SEEDS))
    else:
        todo = [*_jobs(plan.FULL, plan.FULL_SEEDS, names, arguments.seeds)]
        todo += _jobs(plan.SMOLLM2, range(smollm2.NUM_SEEDS), names, arguments.seeds)
    results = Results.of(make_all(todo, store))
    report = Report(
        title=TITLE,
        rows=results.rows(),
        targets=targets(results),
    )
    report.print()
    for path in (store.folder / "result.json", arguments.json):
        if path:
            write(Path(path), report, results)
    return _assert_signs(results) if arguments.quick else 0


def _jobs(
    tasks: plan.Plan, seeds: range, names: Sequence[str], num_seeds: int | None
) -> Iterator[Job]:
    """Yields the runs of those tasks that are named, for so many seeds."""
    chosen = {name: tasks[name] for name in tasks if name in names}
    if num_seeds is not None:
        seeds = range(seeds.start, seeds.start + num_seeds)
    return plan.jobs(chosen, seeds)


def _assert_signs(results: Results) -> int:
    """Prints the signs; returns 1 when one is wrong."""
    found = checks(results)
    print()
    for check in found:
        print(f"{'ok   ' if check.passed else 'WRONG'}  {check.says}: {check.value}")
    return 0 if all(check.passed for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
