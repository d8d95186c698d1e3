"""Joint selection by tiles against the B x B matrix: time, memory, and the same ids.

Run ``python -m benchmarks.joint [--json FILE]``; it takes some minutes and 4 GiB.

Each variant runs in a process of its own, on one thread, with the same embeddings and
the same noise. The dense form is what one writes first, and decently: two float32
matrices of pair costs by ``np.logaddexp``, their difference, then rows and columns of
each drawn chunk summed once.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks.report import Report, Target, json_path
from curator.policies import Joint
from curator.rng import Noise
from curator.types import PairEmbeddings

B, K, D = 16_384, 3_277, 256
POLICY = Joint(score="learnability", loss="sigmoid", num_chunks=16)
NOISE = Noise(seed=0, step=0)
NUM_RUNS = 3

Inputs = dict[str, PairEmbeddings]
Softplus = Callable[[np.ndarray], np.ndarray]


def tiles(inputs: Inputs) -> np.ndarray:
    """The policy as it is."""
    return POLICY.select(np.arange(B), inputs, K, NOISE).indices


def dense(inputs: Inputs) -> np.ndarray:
    """The B x B matrix, with the softplus that everybody writes."""
    return _select_dense(inputs, lambda logits: np.logaddexp(0, logits))


def dense_fast_softplus(inputs: Inputs) -> np.ndarray:
    """The B x B matrix, with a softplus of vectorised functions, in place."""
    return _select_dense(inputs, _fast_softplus)


VARIANTS = {
    variant.__name__: variant for variant in (tiles, dense, dense_fast_softplus)
}


def _select_dense(inputs: Inputs, softplus: Softplus) -> np.ndarray:
    costs = [
        _costs(inputs[f"{model}.embeddings"], softplus)
        for model in ("learner", "reference")
    ]
    scores = costs[0]
    scores -= costs.pop()
    ids = np.arange(B)
    logits = scores.diagonal().astype(np.float64)
    drawn = np.empty(0, np.int64)
    for chunk, positions in enumerate(np.array_split(ids[:K], POLICY.num_chunks)):
        keys = logits + POLICY.temperature * NOISE.gumbel(ids, chunk=chunk)
        keys[drawn] = -np.inf
        highest = np.argpartition(-keys, len(positions))[: len(positions)]
        highest = highest[np.argsort(-keys[highest])]
        logits += scores[highest].sum(axis=0)
        logits += scores[:, highest].sum(axis=1)
        drawn = np.concatenate([drawn, highest])
    return drawn


def _costs(embeddings: PairEmbeddings, softplus: Softplus) -> np.ndarray:
    """Returns the cost of every query with every target."""
    logits = embeddings.queries @ embeddings.targets.T
    logits *= embeddings.logit_scale
    logits += embeddings.logit_bias
    np.fill_diagonal(logits, -logits.diagonal())
    return softplus(logits)


def _fast_softplus(logits: np.ndarray) -> np.ndarray:
    """``max(z, 0) + log(1 + exp(-|z|))`` a block of rows at a time, in place.

    ``np.log`` is vectorised where ``np.log1p`` is not; it loses the cost of far
    negatives to rounding, which the comparison allows.
    """
    for rows in np.array_split(logits, len(logits) // 16):
        small = np.abs(rows)
        np.negative(small, out=small)
        np.exp(small, out=small)
        small += 1
        np.log(small, out=small)
        np.maximum(rows, 0, out=rows)
        rows += small
    return logits


def _inputs() -> Inputs:
    """A clustered pool, half of it mismatched; a good reference, a raw learner.

    Made in place: the peak of this process must be that of the selection.
    """
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
        f"{model}.embeddings": PairEmbeddings(
            blurred(meaning, noise), blurred(meaning[captions], noise), 15.0, -10.0
        )
        for model, noise in (("learner", 1.5), ("reference", 0.3))
    }


def _measure(name: str) -> None:
    """Runs one variant in this process and prints what it took."""
    inputs = _inputs()
    before = _peak_mib()
    seconds: list[float] = []
    ids = np.empty(0, np.int64)
    for _ in range(NUM_RUNS):
        start = time.perf_counter()
        ids = VARIANTS[name](inputs)
        seconds.append(time.perf_counter() - start)
    peak = _peak_mib() - before
    print(json.dumps({"seconds": seconds, "peak": peak, "ids": ids.tolist()}))


def _peak_mib() -> float:
    """Returns the highest resident set of this process so far (Linux: in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(name: str) -> dict[str, list[float]]:
    one_thread = {
        f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from benchmarks import joint; joint._measure({name!r})",
        ],
        env={**os.environ, **one_thread},
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Measures the variants, prints the table, writes the JSON."""
    path = json_path(__doc__)
    results = {name: _run(name) for name in VARIANTS}
    reference = results["dense"]
    rows = [
        {
            "variant": name,
            "median s": statistics.median(result["seconds"]),
            "fastest s": min(result["seconds"]),
            "peak MiB": result["peak"],
            "ids as dense": len(set(result["ids"]) & set(reference["ids"])),
            "same order": result["ids"] == reference["ids"],
        }
        for name, result in results.items()
    ]
    ours, plain = rows[0], rows[1]
    targets = [
        Target.at_least(
            "times faster than dense", plain["median s"] / ours["median s"], "x", 15
        ),
        Target.at_most(
            "peak memory of that of dense",
            ours["peak MiB"] / plain["peak MiB"],
            "x",
            0.1,
        ),
        Target.at_least("ids as dense", ours["ids as dense"] / K, "x", 1),
    ]
    report = Report(
        title=f"Joint selection, B={B} to K={K}, D={D}, {POLICY}, one thread",
        rows=rows,
        targets=targets,
        notes=[
            f"time: median of {NUM_RUNS} runs in one process, each variant in its own",
            "memory: peak resident set (getrusage) above that after making the inputs",
        ],
    )
    report.print()
    report.write(path)


if __name__ == "__main__":
    main()
