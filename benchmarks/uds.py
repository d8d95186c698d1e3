"""How fast utility and projection come from hidden states, against an SVD of logits.

    python -m benchmarks.uds [--json FILE]

One thread. What goes in is an example's hidden states, 256 positions of width 768, and
an output head of 50 257 entries: GPT-2's sizes. The model's forward pass is in none of
the figures, since all need it; forming the logits is in those that need them. What is
computed once per snapshot of the learner has its own column. The SVD gives the nuclear
norm only, ours the projection for the distances too. Both are given one example with
random hidden states and one whose hidden states are of rank 3.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import Report, Target
from curator.models._spectral import LogitGeometry, nuclear_norms, projections

POSITIONS = 256
WIDTH = 768
VOCABULARY = 50_257
RANK = 3
ROUNDS = 7
SLOW_ROUNDS = 2
SPEEDUP = 50.0
CLOSE = 1e-4


def main() -> None:
    """Measures the three ways and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weight = 0.02 * normal(0, VOCABULARY, WIDTH)
    examples = {
        "random": normal(1, 1, POSITIONS, WIDTH),
        f"rank {RANK}": normal(2, 1, POSITIONS, RANK) @ normal(3, 1, RANK, WIDTH),
    }
    rows, targets = measure(weight, examples)
    report = Report(
        title=(
            f"UDS features of one example, one thread, best of {ROUNDS} (those with "
            f"logits: of {SLOW_ROUNDS}); L = {POSITIONS}, V = {VOCABULARY}, d = {WIDTH}"
        ),
        rows=rows,
        targets=targets,
    )
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def measure(
    weight: Tensor, examples: dict[str, Tensor]
) -> tuple[list[dict[str, object]], list[Target]]:
    """Returns the rows of the table and what was to be reached."""
    mask = torch.ones(1, POSITIONS, dtype=torch.bool)
    geometry = LogitGeometry(weight, None)
    per_snapshot = best(lambda: LogitGeometry(weight, None), SLOW_ROUNDS)

    def by_svd(hidden: Tensor) -> float:
        logits = hidden[0] @ weight.T
        # torch does not type its linear algebra.
        return float(cast("Any", torch.linalg).svdvals(logits).sum())

    def from_logits(hidden: Tensor) -> float:
        logits = hidden @ weight.T
        projections(logits, mask)
        return float(nuclear_norms(logits, mask))

    def from_hidden(hidden: Tensor) -> float:
        geometry.projections(hidden, mask)
        return float(geometry.nuclear_norms(hidden, mask))

    wanted = {name: by_svd(hidden) for name, hidden in examples.items()}
    rows: list[dict[str, object]] = []
    seconds: list[float] = []
    differences: list[float] = []
    for name, function, rounds, once in (
        ("logits and SVD, no projection", by_svd, SLOW_ROUNDS, 0.0),
        ("logits and their Gram matrix", from_logits, SLOW_ROUNDS, 0.0),
        ("hidden states (ours)", from_hidden, ROUNDS, per_snapshot),
    ):
        seconds.append(best(lambda run=function: run(examples["random"]), rounds))
        differences = [
            abs(function(hidden) / wanted[case] - 1.0)
            for case, hidden in examples.items()
        ]
        rows.append(
            {
                "from": name,
                "ms/example": round(seconds[-1] * 1e3, 2),
                "speed-up": round(seconds[0] / seconds[-1], 1),
                "ms once per snapshot": round(once * 1e3),
                **{
                    f"relative difference, {case}": f"{difference:.1e}"
                    for case, difference in zip(examples, differences, strict=True)
                },
            }
        )
    speedup, difference = seconds[0] / seconds[-1], max(differences)
    return rows, [
        Target(
            "speed-up over logits and SVD",
            speedup,
            "",
            f">= {SPEEDUP:g}",
            speedup >= SPEEDUP,
        ),
        Target(
            "relative difference from the SVD",
            difference,
            "",
            f"<= {CLOSE:g}",
            difference <= CLOSE,
        ),
    ]


def normal(seed: int, *shape: int) -> Tensor:
    """Returns standard normal draws."""
    return torch.from_numpy(
        np.random.default_rng(seed).standard_normal(shape, np.float32)
    )


def best(function: Callable[[], object], rounds: int) -> float:
    """Returns the seconds of the quickest of some calls."""
    seconds: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
