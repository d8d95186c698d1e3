"""Joint selection by tiles against the B x B matrix: time, memory, and the same ids.

    python -m benchmarks.joint [--json FILE]

Each variant runs in a process of its own, on one thread, with the same embeddings and
the same noise; they take turns. The dense form is what one writes first: two float32
matrices of pair costs by ``np.logaddexp``, their difference, then the rows and columns
of each drawn chunk, summed once. The last variant is the fastest dense form we know
how to write in numpy. Tiles of all pairs are the policy with nothing left out. It takes
some minutes and 5 GiB. Linux only. Time is processor time (one thread that waits for
nothing: wall-clock time on an idle machine), the median of the rounds; memory is the
peak resident set above that after making the inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Report, Target
from curator.policies import Joint
from curator.rng import Noise
from curator.scores import _joint
from curator.types import PairEmbeddings

B, K, D = 16_384, 3_277, 256
SCALE, BIAS = 15.0, -10.0
LEARNER, REFERENCE = "learner.embeddings", "reference.embeddings"
POLICY = Joint(score="learnability", loss="sigmoid", num_chunks=16)
NOISE = Noise(seed=0, step=0)
ROUNDS = 3

Inputs = dict[str, PairEmbeddings]


def tiles(inputs: Inputs) -> np.ndarray:
    """The policy as it is."""
    return POLICY.select(np.arange(B), inputs, K, NOISE).indices


def tiles_of_all_pairs(inputs: Inputs) -> np.ndarray:
    """The policy, but that no cost waits until a candidate is settled."""
    _joint._MIN_WAITING = B + 1
    return tiles(inputs)


def dense(inputs: Inputs) -> np.ndarray:
    """The B x B matrix as one writes it."""

    def costs(embeddings: PairEmbeddings) -> np.ndarray:
        similarity = embeddings.queries @ embeddings.targets.T
        logits = SCALE * similarity + BIAS
        np.fill_diagonal(logits, -logits.diagonal())
        return np.logaddexp(0, logits)

    return _draw(costs(inputs[LEARNER]) - costs(inputs[REFERENCE]))


def dense_in_place(inputs: Inputs) -> np.ndarray:
    """The B x B matrix in as little memory and time as we can."""

    def costs(embeddings: PairEmbeddings) -> np.ndarray:
        logits = (SCALE * embeddings.queries) @ embeddings.targets.T
        logits += BIAS
        np.fill_diagonal(logits, -logits.diagonal())
        for rows in np.array_split(logits, B // 16):  # a block of rows stays in cache
            # log is vectorised, log1p is not; far negatives lose some digits.
            tails = np.exp(-np.abs(rows))
            tails += 1
            np.log(tails, out=tails)
            np.maximum(rows, 0, out=rows)
            rows += tails
        return logits

    scores = costs(inputs[LEARNER])
    scores -= costs(inputs[REFERENCE])
    return _draw(scores)


VARIANTS = {
    variant.__name__: variant
    for variant in (tiles, tiles_of_all_pairs, dense, dense_in_place)
}


def _draw(scores: np.ndarray) -> np.ndarray:
    """Draws chunks by the rows and columns of a matrix of pair scores."""
    ids = np.arange(B)
    logits = scores.diagonal().astype(np.float64)
    drawn = np.empty(0, np.int64)
    for chunk, part in enumerate(np.array_split(ids[:K], POLICY.num_chunks)):
        keys = logits + POLICY.temperature * NOISE.gumbel(ids, chunk=chunk)
        keys[drawn] = -np.inf
        highest = np.argsort(-keys)[: len(part)]
        logits += scores[highest].sum(axis=0) + scores[:, highest].sum(axis=1)
        drawn = np.concatenate([drawn, highest])
    return drawn


def _inputs() -> Inputs:
    """A clustered pool, half of it mismatched; a good reference, a raw learner."""
    rng = np.random.default_rng(0)

    def blurred(vectors: np.ndarray, noise: float) -> np.ndarray:
        result = rng.standard_normal((B, D), dtype=np.float32)
        result *= np.float32(noise / np.sqrt(D))
        result += vectors
        result /= np.sqrt(np.einsum("ij,ij->i", result, result))[:, None]
        return result

    clusters = blurred(np.zeros((1, D), np.float32), 1.0)[:256]
    meaning = blurred(clusters[rng.integers(len(clusters), size=B)], 1.0)
    captions = np.arange(B)
    mismatched = np.flatnonzero(rng.random(B) < 0.5)
    captions[mismatched] = rng.permutation(mismatched)
    return {
        name: PairEmbeddings(
            blurred(meaning, noise), blurred(meaning[captions], noise), SCALE, BIAS
        )
        for name, noise in ((LEARNER, 1.5), (REFERENCE, 0.3))
    }


def measure(name: str) -> None:
    """Runs one variant in this process and prints what it took, as JSON."""
    inputs = _inputs()
    # Forget the peak of making the inputs: VmHWM starts again from VmRSS.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident_mib("VmRSS")
    start = time.process_time()
    indices = VARIANTS[name](inputs)
    seconds = time.process_time() - start
    peak = _resident_mib("VmHWM") - before
    print(json.dumps({"seconds": seconds, "peak": peak, "ids": indices.tolist()}))


def _resident_mib(field: str) -> float:
    """Returns the resident set of this process: now (VmRSS), its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def _run(name: str) -> dict[str, Any]:
    """Measures one variant in a process of its own, on one thread."""
    one_thread = {f"{lib}_NUM_THREADS": "1" for lib in ("OMP", "OPENBLAS", "MKL")}
    call = f"from benchmarks import joint; joint.measure({name!r})"
    done = subprocess.run(
        [sys.executable, "-c", call],
        env={**os.environ, **one_thread},
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Measures the variants and prints the table."""
    parser = argparse.ArgumentParser(
        description="Joint selection, tiles against dense."
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name, results in runs.items():
            results.append(_run(name))
    times = {name: [run["seconds"] for run in runs[name]] for name in VARIANTS}
    seconds = {name: statistics.median(times[name]) for name in VARIANTS}
    peaks = {name: max(run["peak"] for run in runs[name]) for name in VARIANTS}
    ids = {name: runs[name][0]["ids"] for name in VARIANTS}
    ratio = seconds["dense"] / seconds["tiles"]
    share = peaks["tiles"] / peaks["dense"]
    same = ids["tiles"] == ids["dense"]
    report = Report(
        title=(
            f"Joint selection of K={K:,} out of B={B:,}, D={D}, "
            f"{POLICY.num_chunks} chunks, one thread"
        ),
        rows=[
            {
                "variant": name,
                "CPU seconds": round(seconds[name], 2),
                "fastest": round(min(times[name]), 2),
                "slowest": round(max(times[name]), 2),
                "tiles are faster by": round(seconds[name] / seconds["tiles"], 1),
                "peak MiB": round(peaks[name]),
                "same ids": len(set(ids[name]) & set(ids["dense"])),
            }
            for name in VARIANTS
        ],
        targets=[
            Target("times faster than dense", ratio, "", ">= 15", ratio >= 15),
            Target("memory, of that of dense", share, "", "<= 0.1", share <= 0.1),
            Target("ids as dense, in order", float(same), "", "all (1)", same),
        ],
    )
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


if __name__ == "__main__":
    main()
