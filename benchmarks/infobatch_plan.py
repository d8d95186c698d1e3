"""How long a pruned epoch's plan takes, against InfoBatch's published algorithm.

    python -m benchmarks.infobatch_plan [--json FILE] [--small]

One core, 10^7 examples with a loss each. Both sides give every id of the epoch, in
random order and in batches, with its weight. Theirs is their ``prune()`` step for step,
in numpy: compare with the mean, two ``np.where``, one made into a list, a choice
without replacement, the list extended by it, and shuffled. Then 10^8 examples, ours
alone, for the memory; not with ``--small``. Each measurement is a process of its own.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.report import Report, Target
from curator.samplers import InfoBatch, Run

SIZE = 10**7
LARGE = 10**8
BATCH = 4096
PRUNE_RATIO = 0.5
ROUNDS = 3
GOAL = 3.0  # times faster
MAX_GB = 6.0

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


def main() -> None:
    """Measures both sides and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    parser.add_argument("--small", action="store_true", help="leave out 10^8 examples")
    arguments = parser.parse_args()
    rows = [apart(published, SIZE, ROUNDS), apart(ours, SIZE, ROUNDS)]
    theirs, own = (float(str(row["together, s"])) for row in rows)
    targets = [
        Target("speed-up", theirs / own, "", f">= {GOAL:g}", theirs / own >= GOAL)
    ]
    if not arguments.small:
        rows.append(apart(ours, LARGE, 1))
        peak = float(str(rows[-1]["peak GB"]))
        targets.append(
            Target("memory, 10^8", peak, "GB", f"< {MAX_GB:g}", peak < MAX_GB)
        )
    report = Report(
        title=f"one pruned epoch and all of its batches of {BATCH}, one core, best of "
        f"{ROUNDS} (10^8: once)",
        rows=rows,
        targets=targets,
    )
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def published(losses: np.ndarray) -> Callable[[int], Batches]:
    """Returns the algorithm of the authors' package at work on some losses.

    Qin et al. 2024; github.com/NUS-HPC-AI-Lab/InfoBatch, ``infobatch.py``.
    """
    weights = np.ones(len(losses), np.float32)
    keep_ratio = 1 - PRUNE_RATIO

    def plan(epoch: int) -> Batches:
        np.random.seed(epoch)  # noqa: NPY002 - as they do
        low = losses < losses.mean()
        candidates = np.where(low)[0]
        kept = np.where(~low)[0].tolist()
        chosen = np.random.choice(  # noqa: NPY002 - as they do
            candidates, int(keep_ratio * len(candidates)), replace=False
        )
        weights[:] = 1
        weights[chosen] = 1 / keep_ratio
        kept.extend(chosen)
        np.random.shuffle(kept)  # noqa: NPY002 - as they do

        def batches() -> Batches:
            for start in range(0, len(kept), BATCH):
                ids = np.array(kept[start : start + BATCH])
                yield ids, weights[ids]

        return batches()

    return plan


def ours(losses: np.ndarray) -> Callable[[int], Batches]:
    """Returns the sampler at work on some losses."""
    size = len(losses)
    run = Run(num_examples=size, super_batch_size=BATCH, seed=0)
    planner = InfoBatch(prune_ratio=PRUNE_RATIO, anneal=0.0).start(run)
    for start in range(0, size, BATCH):
        ids = np.arange(start, min(size, start + BATCH))
        planner.observe(ids, losses[ids])

    def plan(epoch: int) -> Batches:
        plan = planner.plan(epoch)

        def batches() -> Batches:
            for start in range(0, plan.num_examples, BATCH):
                ids, weights = plan.take(start, min(plan.num_examples, start + BATCH))
                assert weights is not None
                yield ids, weights

        return batches()

    return plan


SIDES = {"published": published, "ours": ours}


def apart(
    side: Callable[[np.ndarray], Callable[[int], Batches]], size: int, rounds: int
) -> dict[str, object]:
    """Returns one row of the table, measured in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (side.__name__, size, rounds))


def measure(side: str, size: int, rounds: int) -> dict[str, object]:
    """Returns one row of the table."""
    rng = np.random.default_rng(0)
    losses = rng.standard_gamma(2, size, dtype=np.float32)
    plan = SIDES[side](losses)
    quickest = (float("inf"), 0.0)
    kept, weight = 0, 0.0
    for epoch in range(rounds):
        began = time.perf_counter()
        batches = plan(epoch)
        planned = time.perf_counter()
        kept, weight = 0, 0.0
        for ids, weights in batches:
            kept += len(ids)
            weight += float(weights.sum(dtype=np.float64))
        done = time.perf_counter()
        quickest = min(quickest, (done - began, planned - began))
    together, planning = quickest
    return {
        "algorithm": side,
        "examples": size,
        "in the epoch": kept,
        "weights / examples": round(weight / size, 6),
        "plan, s": round(planning, 3),
        "batches, s": round(together - planning, 3),
        "together, s": round(together, 3),
        "peak GB": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2
        ),
    }


if __name__ == "__main__":
    main()
