"""The quickstart: uniform batches against jointly selected ones, on real pairs.

    python -m examples.quickstart

The pool holds 40,000 emoji pictures and captions of four vendors, 60 % of the captions
shuffled, as the web is. The task is to match the pictures of a fifth vendor with their
names. The same small two-tower model is trained twice from the same initial weights, by
the same loop: on uniform batches, and on the batches that the policy `joint` selects
with the learner and a reference model. Each arm has a server process of its own, a real
gRPC client, and a schedule of its own that ends at zero.
"""

import os

# Before NumPy is imported: BLAS threads that spin between small products would take the
# core that the server runs on, and double the CPU time of both.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
os.environ.update(ONE_THREAD)

import argparse
import sys
import time
from pathlib import Path

import torch

from examples.quickstart import arms, report

OUT = Path("out")
ARMS = ("uniform", "joint")


def main() -> int:
    """Runs both arms and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of data, weights, batches")
    parser.add_argument(
        "--smoke", action="store_true", help="a few steps of everything: does it run?"
    )
    arguments = parser.parse_args()
    started = time.perf_counter()
    # One core for the trainer, the other for the server.
    torch.set_num_threads(1)
    folder = OUT / ("quickstart-smoke" if arguments.smoke else "quickstart")
    prepared = arms.prepare(folder, arguments.seed, smoke=arguments.smoke)
    done = [arms.run_arm(name, prepared.task, folder) for name in ARMS]
    result = report.Result(
        seed=arguments.seed,
        arms=done,
        reference_steps=prepared.reference_steps,
        reference_cost=prepared.reference_cost,
        reference_top5=prepared.reference_top5,
        total_wall=time.perf_counter() - started,
    )
    report.write(result, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
