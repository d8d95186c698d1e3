"""A subset's scores beside those of all examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from curator.errors import ConfigError
from curator.offline import Scores, Subset
from curator.report._blocks import Block
from curator.report._embeddings import left_out, numbers_of, read_embeddings
from curator.report._numbers import Numbers, read_numbers
from curator.report._options import Options
from curator.report._statistics import Histogram, Survey

__all__ = ["Compared", "compare", "is_in"]


class Compared:
    """A subset's scores beside those of the whole."""

    def __init__(
        self,
        whole: Numbers,
        kept: Numbers,
        dropped: Mapping[str, Survey],
        histograms: Mapping[str, Histogram],
        kind: str | None,
        left_out: str | None,
    ) -> None:
        self.whole = whole
        self.kept = kept
        self.dropped = dropped
        self.histograms = histograms
        self.kind = kind
        self.left_out = left_out

    def main(self) -> tuple[str, bool] | None:
        """Returns the score that tells best what was selected, and if it is higher.

        By the chance that it is higher of a selected example than of any, from the
        histograms. None where no score is finite.
        """
        found: list[tuple[float, str, bool]] = []
        for name, each in self.histograms.items():
            whole = self.whole.each[name].histogram.counts
            if not (each.counts.sum() and whole.sum()):
                continue
            below = np.cumsum(whole) - 0.5 * whole
            chance = float(
                (each.counts * below).sum() / each.counts.sum() / whole.sum()
            )
            found.append((abs(chance - 0.5), name, chance >= 0.5))
        return max(found, key=lambda one: one[0])[1:] if found else None


def _check(subset: Subset, scores: Scores) -> None:
    ours, theirs = subset.metadata["pool_fingerprint"], scores.pool_fingerprint
    if ours is not None and theirs is not None and ours != theirs:
        msg = (
            f"--scores: {str(scores.path)!r} are of another pool than the subset was "
            f"selected from ({theirs[:16]}, and {ours[:16]})"
        )
        raise ConfigError(msg)
    if len(subset.ids) > scores.num_examples:
        msg = (
            f"--scores: {str(scores.path)!r} are of {scores.num_examples:,} examples, "
            f"and the subset has {len(subset.ids):,}: it was selected from others"
        )
        raise ConfigError(msg)


def compare(subset: Subset, scores: Scores, options: Options) -> Compared:
    _check(subset, scores)
    embeddings = read_embeddings(scores)
    names, read = numbers_of(scores, embeddings)

    def part(block: Block, which: np.ndarray) -> Block:
        numbers = {name: values[which] for name, values in block.numbers.items()}
        return Block(block.start, block.ids[which], numbers)

    def kept() -> Iterator[Block]:
        start = 0
        for block in read():
            rows = part(block, is_in(subset.ids, block.ids))
            yield Block(start, rows.ids, rows.numbers)
            start += len(rows.ids)

    def numbers(source: Callable[[], Iterator[Block]], count: int) -> Numbers:
        return read_numbers(
            source, names, count, options.num_examples, None, must_group=False
        )

    whole = numbers(read, scores.num_examples)
    inside = numbers(kept, len(subset.ids))
    dropped = {name: Survey(options.num_examples) for name in names}
    histograms = {name: Histogram(whole.each[name].histogram.edges) for name in names}
    found = 0
    for block in read():
        is_kept = is_in(subset.ids, block.ids)
        found += int(is_kept.sum())
        for name, values in block.numbers.items():
            histograms[name].add(values[is_kept])
            dropped[name].add(block.ids[~is_kept], values[~is_kept])
    if found < len(subset.ids):
        msg = (
            f"--scores: {str(scores.path)!r} lack {len(subset.ids) - found:,} of the "
            "subset's examples: it was selected from others"
        )
        raise ConfigError(msg)
    kind = None if scores.manifest is None else scores.manifest["model"]["kind"]
    return Compared(whole, inside, dropped, histograms, kind, left_out(scores))


def is_in(sorted_ids: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if not len(sorted_ids):
        return np.zeros(len(ids), np.bool_)
    rows = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return sorted_ids[rows] == ids
