"""The report on a subset: what was selected, what was dropped, and how they differ."""

from __future__ import annotations

import numpy as np

from curator.offline import Scores, Subset
from curator.pools import Pool
from curator.report._columns import Columns, choose_columns
from curator.report._compare import compare, is_in
from curator.report._content import (
    Report,
)
from curator.report._examples import Examples
from curator.report._groups import Groups
from curator.report._options import Options
from curator.report._subset_page import SubsetPage

__all__ = ["report_subset"]

_BLOCK = 65_536


def report_subset(
    subset: Subset,
    scores: Scores | None,
    pool: Pool | None,
    options: Options,
    *,
    name: str,
) -> Report:
    """Returns the report on a subset.

    Args:
        subset: What was selected.
        scores: What it was selected from; None where they are not at hand.
        pool: The examples; None where they are not at hand.
        options: How much is shown.
        name: Of the subset's file.

    Raises:
        ConfigError: The scores are of another pool, or a column cannot be shown.
        PoolError: The pool cannot be read.
        StorageError: The scores cannot be read.
    """
    columns = Columns()
    if pool is not None:
        columns = choose_columns(pool, options.choice)
    compared = None if scores is None else compare(subset, scores, options)
    page = SubsetPage(subset, compared, Examples(pool, columns), options, name)
    sections = [page.overview()]
    if compared is not None:
        sections.append(page.differences(compared))
    rates = None
    if pool is not None and columns.group is not None:
        groups = Groups(pool, columns.group)
        rates = _count(subset, groups, pool, is_asked_for=bool(options.choice.group))
        if rates is not None:
            sections.append(page.domains(groups, rates))
    sections += [*page.weights(), page.examples(), page.selection()]
    return Report(
        title=f"A subset of {len(subset.ids):,} examples",
        subtitle=page.sentence(),
        sections=sections,
        summary=page.summary(),
        lines=list(page.lines()),
    )


def _count(
    subset: Subset, groups: Groups, pool: Pool, *, is_asked_for: bool
) -> np.ndarray | None:
    """Returns how many of each group there are, and were selected: int [G, 2]."""
    # Ids of scores are those of the pool from 0 on: --limit scores only the first.
    size = min(subset.metadata["num_examples"], pool.num_examples)
    blocks = [
        np.arange(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)
    ]
    is_few = all(groups.count(ids) for ids in blocks)
    if not groups.check_few(is_asked_for=is_asked_for, is_few=is_few):
        return None
    counts = np.zeros((len(groups), 2), np.int64)
    for ids in blocks:
        codes = groups.codes(ids)
        counts[:, 0] += np.bincount(codes, minlength=len(groups))
        kept = codes[is_in(subset.ids, ids)]
        counts[:, 1] += np.bincount(kept, minlength=len(groups))
    return counts
