"""What people select subsets with: the peers of ``benchmarks.select_subsets``.

Each takes rows of length one and returns indices in the order they are chosen.
"""

from __future__ import annotations

import importlib
import time
import warnings
from typing import Any

import numpy as np
import torch

__all__ = [
    "apricot_facility",
    "deepcore_facility",
    "deepcore_k_center",
    "lazy_facility",
    "least_without_matrix",
]

# Steps that the estimate is from: columns of first gains, and gains of one candidate.
_FIRST_GAINS = 256
_NEXT_GAINS = 20


def deepcore_k_center(rows: np.ndarray, num_selected: int, first: int) -> np.ndarray:
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


def deepcore_facility(rows: np.ndarray, num_selected: int) -> np.ndarray:
    """DeepCore's FacilityLocation with its LazyGreedy, the better exact optimizer.

    What it computes is that of PatrickZH/DeepCore, MIT licence, step by step:
    deepcore/methods/methods_utils, ``submodular_function.py``,
    ``submodular_optimizer.py``, ``cossim.py``.
    """
    size = len(rows)
    everyone = np.ones(size, dtype=bool)
    matrix = np.zeros([size, size], dtype=np.float32)
    is_made = np.zeros(size, dtype=bool)
    covered = np.zeros(size, dtype=np.float32)

    def similarities(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if not np.all(is_made[b]):
            if b.dtype != bool:
                mask = ~everyone
                mask[b] = True
                b = mask
            missing = b & ~is_made
            matrix[:, missing] = _deepcore_cosines(rows[everyone], rows[missing])
            is_made[missing] = True
        return matrix[np.ix_(a, b)]

    def gains_of(candidates: np.ndarray) -> np.ndarray:
        above = similarities(everyone, candidates) - covered.reshape(-1, 1)
        return np.maximum(0.0, above).sum(axis=0)

    chosen: list[int] = []
    is_chosen = np.zeros(size, dtype=bool)
    gains = np.zeros(size)
    gains[~is_chosen] = gains_of(~is_chosen)
    while len(chosen) < num_selected:
        best, last = -np.inf, -1
        while True:
            place = gains.argmax()
            if place == last:
                break
            gain = gains_of(np.array([place]))[0]
            gains[place] = gain
            if gain >= best:
                best, last = gain, place
        is_chosen[place] = True
        gains[place] = -np.inf
        new = similarities(everyone, np.array([place]))
        covered = np.maximum(covered, np.max(new, axis=1))
        chosen.append(int(place))
    return np.array(chosen)


def _deepcore_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """DeepCore's cossim_np."""
    found = np.dot(a, b.T)
    lengths = np.linalg.norm(a, axis=1).reshape(-1, 1) * np.linalg.norm(b, axis=1)
    found = found / lengths
    found[np.isneginf(found)] = 0.0
    return 0.5 + 0.5 * found


def least_without_matrix(rows: np.ndarray) -> float:
    """Returns processor seconds of DeepCore's lazy greedy if it held no similarities.

    At least: all first gains, and each gain once more, which the second choice takes,
    as every first gain is higher than any second one. Both are those of all examples by
    the time of some.
    """
    covered = np.zeros(len(rows), dtype=np.float32)

    def gains_of(candidates: np.ndarray) -> np.ndarray:
        above = _deepcore_cosines(rows, rows[candidates]) - covered.reshape(-1, 1)
        return np.maximum(0.0, above).sum(axis=0)

    num_first = min(_FIRST_GAINS, len(rows))
    start = time.process_time()
    gains_of(np.arange(num_first))
    first = time.process_time() - start
    covered = _deepcore_cosines(rows, rows[:1])[:, 0]
    start = time.process_time()
    for place in range(_NEXT_GAINS):
        gains_of(np.array([place]))
    again = time.process_time() - start
    return len(rows) * (first / num_first + again / _NEXT_GAINS)


def lazy_facility(rows: np.ndarray, num_selected: int) -> np.ndarray:
    """The lazy greedy of :func:`deepcore_facility`, without what it need not do."""
    kernel = (1 + rows @ rows.T) / 2
    covered = np.zeros(len(rows), np.float32)
    # As it is symmetric, a row has what a column has, in one piece.
    gains = np.array([row.sum(dtype=np.float64) for row in kernel])
    above = np.empty_like(covered)
    chosen: list[int] = []
    while len(chosen) < num_selected:
        best, last = -np.inf, -1
        while True:
            place = int(gains.argmax())
            if place == last:
                break
            np.subtract(kernel[place], covered, out=above)
            gains[place] = np.maximum(above, 0, out=above).sum(dtype=np.float64)
            if gains[place] >= best:
                best, last = gains[place], place
        chosen.append(place)
        gains[place] = -np.inf
        covered = np.maximum(covered, kernel[place])
    return np.array(chosen)


def apricot_facility(rows: np.ndarray, num_selected: int) -> np.ndarray:
    """Apricot's with its fastest exact optimizer, similarities by one product.

    It works in float64; its own cosines and its two-stage optimizer take longer.
    """
    apricot: Any = importlib.import_module("apricot")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = rows.astype(np.float64)
        model = apricot.FacilityLocationSelection(
            num_selected, metric="precomputed", optimizer="lazy"
        )
        model.fit((1 + exact @ exact.T) / 2)
    return np.asarray(model.ranking)
