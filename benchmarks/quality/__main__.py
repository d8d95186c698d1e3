"""Does choosing batches pay? Trained models, paired seeds, every cost counted.

    python -m benchmarks.quality --quick      # minutes; exits 1 when a sign is wrong
    python -m benchmarks.quality [--tasks emoji] [--smollm2]

The full run takes hours, may be stopped at any time, and goes on where it was. Then
``python -m benchmarks.quality.evidence`` writes ``docs/evidence.md``.
"""

import os

# Before NumPy is imported: BLAS threads that spin would be counted as work.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})

import argparse
import sys
from pathlib import Path

from benchmarks.quality import instructions, plan, smollm2
from benchmarks.quality.checks import checks
from benchmarks.quality.claims import targets
from benchmarks.quality.data import is_there
from benchmarks.quality.runner import OUT, make_all, warm_up
from benchmarks.quality.runs import Store
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
        "--tasks", nargs="+", choices=list(plan.FULL), default=list(plan.FULL)
    )
    parser.add_argument("--seeds", type=int, default=len(plan.FULL_SEEDS))
    parser.add_argument(
        "--smollm2",
        action="store_true",
        help="also fine-tune SmolLM2-135M (needs requirements-smollm2.txt)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    if arguments.quick:
        chosen, seeds = plan.QUICK, plan.QUICK_SEEDS
    else:
        chosen = {name: plan.FULL[name] for name in arguments.tasks}
        first = plan.FULL_SEEDS.start
        seeds = range(first, first + arguments.seeds)
    if any(name.startswith("fashion") for name in chosen) and not is_there():
        sys.exit(
            "Fashion-MNIST is missing: run  python -m benchmarks.quality.data  first, "
            "or leave it out:  --tasks mixture mixture-noise emoji"
        )
    if any(name.startswith("instructions") for name in chosen) or arguments.smollm2:
        instructions.check()
    if arguments.smollm2:
        smollm2.check()
    store = Store(OUT / "quick" if arguments.quick else OUT)
    warm_up()
    todo = list(plan.jobs(chosen, seeds))
    if arguments.smollm2:
        todo += plan.jobs(plan.SMOLLM2, range(smollm2.NUM_SEEDS))
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


def _assert_signs(results: Results) -> int:
    """Prints the signs; returns 1 when one is wrong."""
    found = checks(results)
    print()
    for check in found:
        print(f"{'ok   ' if check.passed else 'WRONG'}  {check.says}: {check.value}")
    return 0 if all(check.passed for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
