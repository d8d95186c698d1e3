"""Selection of subsets by embeddings, against what people use.

k-center against DeepCore's loop (in torch, as it is there), facility location against
apricot, where that is installed, and against DeepCore's lazy greedy; all of them exact,
on the same embeddings, judged by the same objective in float64.

Run: ``python -m benchmarks.select_subsets --num-examples 10000 --num-selected 1000``
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from curator.policies import FacilityLocation, KCenter, LogDet, Policy
from curator.rng import Noise

__all__ = ["embeddings", "run"]

_FEATURE = "pool.embedding"
_NOISE = Noise(seed=0, step=0)

# apricot and DeepCore hold all similarities: above this they take over 3 GB (float64).
_MAX_PEER = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class _Choice:
    """What was chosen, and how long it took, by the clock and by the processors."""

    indices: np.ndarray
    seconds: float
    cpu_seconds: float


def embeddings(num: int, width: int, seed: int) -> np.ndarray:
    """Returns unit rows like those of sentences.

    Topics of very unequal size with topics inside them, noise, and a direction that all
    have in common: cosines are 0.08 in the median and 0.55 at the 99th percentile.
    """
    rng = np.random.default_rng(seed)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    topics = np.repeat(unit(rng.standard_normal((40, width))), 40, axis=0)
    topics = unit(topics + 0.9 * unit(rng.standard_normal(topics.shape)))
    shares = rng.pareto(1.2, len(topics)) + 0.05
    of = rng.choice(len(topics), size=num, p=shares / shares.sum())
    noise = 0.9 * unit(rng.standard_normal((num, width)))
    common = 0.4 * unit(rng.standard_normal((1, width)))
    return unit(topics[of] + noise + common).astype(np.float32)


def run(
    num_examples: int,
    width: int,
    num_selected: int,
    seed: int,
    *,
    with_peers: bool = True,
) -> dict[str, Any]:
    """Measures each policy once, and its peers; one entry per policy.

    Args:
        num_examples: How many embeddings there are.
        width: How wide they are.
        num_selected: How many are chosen.
        seed: Of the embeddings.
        with_peers: Whether to run the peers too.
    """
    rows = embeddings(num_examples, width, seed)
    results: dict[str, Any] = {
        "num_examples": num_examples,
        "width": width,
        "num_selected": num_selected,
        "threads": torch.get_num_threads(),
    }
    centres = _choose(KCenter(embeddings=_FEATURE), rows, num_selected)
    peers: dict[str, Callable[[], np.ndarray]] = {
        "deepcore": lambda: _deepcore_k_center(
            rows, num_selected, int(centres.indices[0])
        )
    }
    results["kcenter"] = _compare(
        centres, peers if with_peers else {}, lambda chosen: _radius(rows, chosen)
    )
    facilities = _choose(FacilityLocation(embeddings=_FEATURE), rows, num_selected)
    peers = {}
    if num_examples <= _MAX_PEER:
        peers["deepcore_lazy"] = lambda: _deepcore_facility(rows, num_selected)
        if _apricot() is not None:
            _apricot_facility(rows[:100], 2)  # which it compiles in
            peers["apricot_lazy"] = lambda: _apricot_facility(rows, num_selected)
    results["facility_location"] = _compare(
        facilities, peers if with_peers else {}, lambda chosen: _coverage(rows, chosen)
    )
    volume = _choose(LogDet(embeddings=_FEATURE), rows, num_selected)
    results["logdet"] = _compare(volume, {}, lambda chosen: _log_det(rows, chosen))
    return results


def _choose(policy: Policy, rows: np.ndarray, num_selected: int) -> _Choice:
    ids = np.arange(len(rows))
    return _time(
        lambda: policy.select(ids, {_FEATURE: rows}, num_selected, _NOISE).indices
    )


def _time(choose: Callable[[], np.ndarray]) -> _Choice:
    start, start_cpu = time.perf_counter(), time.process_time()
    indices = choose()
    return _Choice(
        indices, time.perf_counter() - start, time.process_time() - start_cpu
    )


def _compare(
    ours: _Choice,
    peers: Mapping[str, Callable[[], np.ndarray]],
    objective: Callable[[np.ndarray], float],
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "seconds": ours.seconds,
        "cpu_seconds": ours.cpu_seconds,
        "objective": objective(ours.indices),
    }
    for name, choose in peers.items():
        peer = _time(choose)
        result[name] = {
            "seconds": peer.seconds,
            "cpu_seconds": peer.cpu_seconds,
            "objective": objective(peer.indices),
            "times_slower": peer.seconds / ours.seconds,
            "times_more_cpu": peer.cpu_seconds / ours.cpu_seconds,
        }
    return result


def _deepcore_k_center(rows: np.ndarray, num_selected: int, first: int) -> np.ndarray:
    """DeepCore's k_center_greedy, with the first centre given (PatrickZH/DeepCore)."""
    matrix = torch.from_numpy(rows)
    size = len(rows)

    def distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        m, n = x.size(0), y.size(0)
        xx = torch.pow(x, 2).sum(1, keepdim=True).expand(m, n)
        yy = torch.pow(y, 2).sum(1, keepdim=True).expand(n, m).t()
        found = xx + yy
        found.addmm_(x, y.t(), beta=1, alpha=-2)
        return found.clamp(min=1e-12).sqrt()

    with torch.no_grad():
        is_chosen = np.zeros(size, dtype=bool)
        is_chosen[first] = True
        chosen = [first]
        # There all rows of distances are kept, which only costs memory.
        mins = torch.full((size,), -1.0)
        mins[~is_chosen] = distances(matrix[[first]], matrix[~is_chosen])[0]
        while len(chosen) < num_selected:
            place = int(torch.argmax(mins))
            is_chosen[place] = True
            chosen.append(place)
            mins[place] = -1
            free = torch.from_numpy(~is_chosen)
            found = distances(matrix[[place]], matrix[free])[0]
            mins[free] = torch.minimum(mins[free], found)
    return np.array(chosen)


def _deepcore_facility(rows: np.ndarray, num_selected: int) -> np.ndarray:
    """DeepCore's FacilityLocation with its LazyGreedy, the better of its optimizers."""
    kernel = (1 + rows @ rows.T) / 2
    covered = np.zeros(len(rows), np.float32)

    def gain(candidates: np.ndarray) -> np.ndarray:
        above = kernel[:, candidates] - covered[:, None]
        return np.maximum(0.0, above).sum(axis=0)

    gains = gain(np.arange(len(rows)))
    chosen: list[int] = []
    while len(chosen) < num_selected:
        best, last = -np.inf, -1
        while True:
            place = int(gains.argmax())
            if place == last:
                break
            gains[place] = gain(np.array([place]))[0]
            if gains[place] >= best:
                best, last = gains[place], place
        chosen.append(place)
        gains[place] = -np.inf
        covered = np.maximum(covered, kernel[:, place])
    return np.array(chosen)


def _apricot() -> Any | None:
    try:
        import apricot  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return apricot


def _apricot_facility(rows: np.ndarray, num_selected: int) -> np.ndarray:
    """Apricot's with its fastest exact optimizer, similarities by one product.

    It works in float64; its own cosines and its two-stage optimizer take longer.
    """
    apricot: Any = _apricot()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = rows.astype(np.float64)
        model = apricot.FacilityLocationSelection(
            num_selected, metric="precomputed", optimizer="lazy"
        )
        model.fit((1 + exact @ exact.T) / 2)
    return np.asarray(model.ranking)


def _radius(rows: np.ndarray, chosen: np.ndarray) -> float:
    return float(np.sqrt(max(2 - 2 * _largest_cosines(rows, chosen).min(), 0)))


def _coverage(rows: np.ndarray, chosen: np.ndarray) -> float:
    return float((1 + _largest_cosines(rows, chosen)).mean() / 2)


def _largest_cosines(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns the largest cosine of each row to a chosen one."""
    exact = rows.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    blocks = np.array_split(exact, max(len(rows) // 4096, 1))
    return np.concatenate([(b @ exact[chosen].T).max(axis=1) for b in blocks])


def _log_det(rows: np.ndarray, chosen: np.ndarray) -> float:
    exact = rows[chosen].astype(np.float64)
    kernel = exact @ exact.T + LogDet().ridge * np.eye(len(chosen))
    return float(np.linalg.slogdet(kernel)[1])


def main() -> None:
    """Prints a line for each policy and each peer, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-examples", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--num-selected", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(
        options.num_examples,
        options.width,
        options.num_selected,
        options.seed,
        with_peers=not options.no_peers,
    )
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"{options.num_selected} of {options.num_examples} x {options.width}, "
        f"{result['threads']} threads"
    )
    for policy in ("kcenter", "facility_location", "logdet"):
        found = result[policy]
        print(
            f"{policy:18} {'curator':16} {found['seconds']:8.2f} s "
            f"{found['cpu_seconds']:8.2f} CPU s            objective "
            f"{found['objective']:.6f}"
        )
        for name, peer in found.items():
            if isinstance(peer, dict):
                print(
                    f"{policy:18} {name:16} {peer['seconds']:8.2f} s "
                    f"{peer['cpu_seconds']:8.2f} CPU s {peer['times_slower']:7.1f} x  "
                    f"objective {peer['objective']:.6f}"
                )


if __name__ == "__main__":
    main()
