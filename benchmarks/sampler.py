"""How fast an epoch's order is computed, against numpy's shuffle in memory.

    python -m benchmarks.sampler [--json FILE]

One core. Positions are spread over the whole epoch in runs of 4096, as super-batches
are. numpy permutes everything before the first id is known, and holds 8 bytes per
example from then on; where that is more than 1 GB it is left out. We hold nothing.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.report import Report, Target
from curator.samplers import Permutation

SIZES = (10**5, 2**20 + 1, 10**9, 10**12)
RUN = 4096
NUM_RUNS = 256
ROUNDS = 7
GOAL = 5.0  # million ids/s
MAX_NUMPY = 1 << 27


def main() -> None:
    """Measures every size and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    rows = [measure(size) for size in SIZES]
    slowest = min(float(str(row["million ids/s"])) for row in rows)
    target = Target(
        "slowest size", slowest, "million ids/s", f">= {GOAL:g}", slowest >= GOAL
    )
    report = Report(
        title=f"sampler, one core, best of {ROUNDS}", rows=rows, targets=[target]
    )
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def measure(size: int) -> dict[str, object]:
    """Returns one row of the table."""
    starts = np.linspace(0, size - RUN, NUM_RUNS).astype(np.int64)
    runs = [np.arange(start, start + RUN) for start in starts]

    def ours() -> None:
        order = Permutation(size, 0, 0)
        for positions in runs:
            order.at(positions)

    def first_batch() -> None:
        Permutation(size, 0, 0).at(runs[-1][:256])

    numpy_rate = None
    if size <= MAX_NUMPY:
        rng = np.random.default_rng(0)
        numpy_rate = size / best(lambda: rng.permutation(size)) / 1e6
    return {
        "examples": size,
        "million ids/s": round(RUN * NUM_RUNS / best(ours) / 1e6, 1),
        "numpy, million ids/s": numpy_rate and round(numpy_rate, 1),
        "last 256 of the epoch, us": round(best(first_batch) * 1e6),
        "MB held by numpy": round(size * 8 / 1e6),
    }


def best(function: Callable[[], object]) -> float:
    """Returns the seconds of the quickest of some calls."""
    seconds: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
