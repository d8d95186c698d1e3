"""Selection of subsets by embeddings, against what people use.

    python -m benchmarks.select_subsets [--num-examples N] [--json FILE]

k-center against DeepCore's loop (in torch, as it is there); facility location against
DeepCore's lazy greedy as it is there, against apricot's, where that is installed, with
all similarities made by one product, and against a plain one written by hand, which has
no target. All of them are exact, run on the same embeddings, and are judged by the same
objective in float64. Ours runs before each peer and after the last; its median counts.
How many times longer a peer takes is by the clock, all with the threads that they take
by default; processor time is beside it, and what the estimate is compared by.

Peers of facility location hold all similarities. Where memory is too small for that the
table says how much it would take. What fits always is DeepCore's lazy greedy that makes
similarities when it needs them: that is measured for some steps, and the sum over the
fewest steps that it could make is in the table as an estimate.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Report, Target
from benchmarks.select_peers import (
    apricot_facility,
    deepcore_facility,
    deepcore_k_center,
    lazy_facility,
    least_without_matrix,
)
from curator.policies import FacilityLocation, KCenter, LogDet, Policy
from curator.rng import Noise

__all__ = ["embeddings", "measure"]

MIN_TIMES_FASTER = 10.0
SAME_OBJECTIVE = 1e-6

_FEATURE = "pool.embedding"
_NOISE = Noise(seed=0, step=0)

# A peer that holds similarities takes up to five times as much while it makes them.
_TIMES_HELD = 5


@dataclasses.dataclass(frozen=True)
class _Peer:
    """Another way to select by the same policy.

    Attributes:
        name: For the table.
        choose: Returns what it chooses.
        held: Bytes of similarities that it holds.
        is_used: Whether people use it, and the target is about it.
    """

    name: str
    choose: Callable[[], np.ndarray]
    held: int = 0
    is_used: bool = True


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What was chosen, and how long it took, by the clock and by the processors."""

    indices: np.ndarray
    seconds: float
    cpu_seconds: float


def main() -> None:
    """Measures all, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--num-examples", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--num-selected", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    options = parser.parse_args()
    report = measure(
        options.num_examples,
        options.width,
        options.num_selected,
        options.seed,
        with_peers=not options.no_peers,
    )
    report.print()
    if options.json:
        report.write(Path(options.json))


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


def measure(
    num_examples: int,
    width: int,
    num_selected: int,
    seed: int,
    *,
    with_peers: bool = True,
) -> Report:
    """Measures each policy, and its peers.

    Args:
        num_examples: How many embeddings there are.
        width: How wide they are.
        num_selected: How many are chosen.
        seed: Of the embeddings.
        with_peers: Whether to run the peers too.
    """
    rows = embeddings(num_examples, width, seed)
    table = _Table(rows, num_selected)
    facility = _facility_peers(rows, num_selected) if with_peers else []
    k_center = [_k_center_peer(rows, num_selected)] if with_peers else []
    table.add(FacilityLocation(embeddings=_FEATURE), facility, _coverage)
    if with_peers:
        table.add_estimate()
    table.add(KCenter(embeddings=_FEATURE), k_center, _radius)
    table.add(LogDet(embeddings=_FEATURE), [], _log_det)
    title = (
        f"{num_selected:,} of {num_examples:,} embeddings of width {width}, "
        f"{torch.get_num_threads()} threads, "
        f"{_memory() / 1e9:.0f} GB of memory"
    )
    return Report(title=title, rows=table.rows, targets=table.targets)


class _Table:
    """The rows and the targets of the report."""

    def __init__(self, embedded: np.ndarray, num_selected: int) -> None:
        self.rows: list[dict[str, object]] = []
        self.targets: list[Target] = []
        self._embedded = embedded
        self._num_selected = num_selected
        self._cpu = 0.0

    def add(
        self,
        policy: Policy,
        peers: list[_Peer],
        objective: Callable[[np.ndarray, np.ndarray], float],
    ) -> None:
        """Measures a policy and its peers."""
        ids = np.arange(len(self._embedded))

        def choose() -> np.ndarray:
            features = {_FEATURE: self._embedded}
            return policy.select(ids, features, self._num_selected, _NOISE).indices

        _reset_peak()
        ours = [_time(choose)]
        peak = _peak()
        fit = [peer for peer in peers if _TIMES_HELD * peer.held <= _memory()]
        theirs: dict[str, _Choice] = {}
        for peer in fit:
            theirs[peer.name] = _time(peer.choose)
            ours.append(_time(choose))
        seconds = statistics.median(choice.seconds for choice in ours)
        self._cpu = statistics.median(choice.cpu_seconds for choice in ours)
        found = objective(self._embedded, ours[0].indices)
        self._row(policy.name, "curator", seconds, self._cpu, 1.0, peak, 0, found)
        for peer in peers:
            choice = theirs.get(peer.name)
            if choice is None:
                self._row(policy.name, peer.name, held=peer.held)
                continue
            times = choice.seconds / seconds
            value = objective(self._embedded, choice.indices)
            self._row(
                policy.name, peer.name, choice.seconds, choice.cpu_seconds, times,
                None, peer.held, value,
            )  # fmt: skip
            if peer.is_used:
                self._compare(policy.name, peer.name, times)
            difference = abs(value / found - 1)
            self.targets.append(
                Target(
                    f"{policy.name}, objective against {peer.name}",
                    difference, "apart", f"<= {SAME_OBJECTIVE:g}",
                    difference <= SAME_OBJECTIVE,
                )
            )  # fmt: skip

    def add_estimate(self) -> None:
        """Adds what a facility location that holds no similarities takes at least."""
        name = "DeepCore, none held: estimate"
        seconds = least_without_matrix(self._embedded)
        times = seconds / self._cpu
        self._row("facility_location", name, None, seconds, times)
        self._compare("facility_location", name, times)

    def _compare(self, policy: str, peer: str, times: float) -> None:
        self.targets.append(
            Target(
                f"{policy}, times faster than {peer}", times, "",
                f">= {MIN_TIMES_FASTER:g}", times >= MIN_TIMES_FASTER,
            )
        )  # fmt: skip

    def _row(
        self,
        policy: str,
        by: str,
        seconds: float | None = None,
        cpu_seconds: float | None = None,
        times: float | None = None,
        peak: float | None = None,
        held: int = 0,
        objective: float | None = None,
    ) -> None:
        self.rows.append(
            {
                "select by": policy,
                "of": by,
                "s": seconds,
                "CPU s": cpu_seconds,
                "times": times,
                "peak MB": peak,
                "similarities GB": held / 1e9,
                "objective": None if objective is None else f"{objective:.7g}",
            }
        )


def _time(choose: Callable[[], np.ndarray]) -> _Choice:
    start, start_cpu = time.perf_counter(), time.process_time()
    indices = choose()
    return _Choice(
        indices, time.perf_counter() - start, time.process_time() - start_cpu
    )


def _k_center_peer(rows: np.ndarray, num_selected: int) -> _Peer:
    def choose() -> np.ndarray:
        policy = KCenter(embeddings=_FEATURE)
        features = {_FEATURE: rows}
        first = policy.select(np.arange(len(rows)), features, 1, _NOISE).indices
        return deepcore_k_center(rows, num_selected, int(first[0]))

    return _Peer("DeepCore", choose)


def _facility_peers(rows: np.ndarray, num_selected: int) -> list[_Peer]:
    square = len(rows) ** 2
    peers = [
        _Peer("DeepCore", lambda: deepcore_facility(rows, num_selected), 4 * square),
        _Peer(
            "lazy greedy, by hand",
            lambda: lazy_facility(rows, num_selected),
            4 * square,
            is_used=False,
        ),
    ]
    if importlib.util.find_spec("apricot") is not None:
        apricot_facility(rows[:100], 2)  # which it compiles in
        peers.append(
            _Peer("apricot", lambda: apricot_facility(rows, num_selected), 8 * square)
        )
    return peers


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


def _memory() -> int:
    """Returns the bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _reset_peak() -> None:
    """Lets :func:`_peak` start anew, where the kernel can do that."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")


def _peak() -> float | None:
    """Returns the most memory of this process since, in MB, where the kernel tells."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = status.read_text().splitlines()
    return next(int(x.split()[1]) * 1024 / 1e6 for x in lines if x[:6] == "VmHWM:")


if __name__ == "__main__":
    main()
