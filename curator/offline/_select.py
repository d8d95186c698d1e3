"""Selecting a subset of a scored pool: features, a policy, and the file of the subset.

Shapes: ``N`` examples that have scores, ``C`` of them candidates, ``K`` selected.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

import curator
from curator.config import Config, did_you_mean, policy_to_table
from curator.errors import ConfigError, FeatureError, StorageError
from curator.files import check_none
from curator.offline._column_difference import comparable, compare_columns
from curator.offline._conditions import meets
from curator.offline._difference import (
    CategoryDifference,
    Difference,
    compare_numbers,
)
from curator.offline._select_inputs import Inputs, open_inputs
from curator.offline._select_job import SelectJob, SelectReport
from curator.offline._subset import Subset, write_subset
from curator.offline._subset_rows import row_format, write_rows
from curator.policies import DomainQuota, Policy, RememberingPolicy
from curator.pools import Pool
from curator.rng import Noise
from curator.samplers import Run, Uniform
from curator.scores import SCORES
from curator.types import Feature, Features, PairEmbeddings, Selection

__all__ = ["select"]

_FORMAT = 1
# These add up over super-batches; what else a policy says is of one of them.
_SUMMED = ("num_dropped", "num_duplicates", "num_quarantined", "num_topped_up")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """What was selected, by position among the examples that have scores."""

    positions: Int64[np.ndarray, " K"]
    weights: Float32[np.ndarray, " K"]
    scores: Float32[np.ndarray, " K"] | None
    stats: dict[str, float]


def select(job: SelectJob, config: Config | None = None) -> SelectReport:
    """Selects a subset and writes it.

    The same scores, job and version of batch-curator give the same bytes.

    Args:
        job: What to select.
        config: Has the pool, where one is named.

    Raises:
        ConfigError: The job does not fit the scores, these are not finished or not of
            one pool, or the file is there already.
        FeatureError: What the policy reads is not what it expects.
        PoolError: The pool cannot be read.
        StorageError: Scores cannot be read, or the subset cannot be written.
    """
    started = time.perf_counter()
    paths = {"scores": job.scores, "learner": job.learner, "reference": job.reference}
    for path in (job.out, job.rows):
        _check_new(path, paths.values())
    if job.rows is not None and job.rows.resolve() == job.out.resolve():
        msg = f"rows: {str(job.rows)!r} is the subset itself (out); choose another name"
        raise ConfigError(msg)
    scratch = job.out.parent if job.super_batch_size else None
    with open_inputs(paths, config, job.pool, scratch=scratch) as inputs:
        write = _writer_of_rows(job, config, inputs.pool)
        candidates = None
        if job.where is not None:
            candidates = _candidates(job.where, inputs)
        chosen = _all_of(candidates, len(inputs.ids))
        if job.policy is not None:
            chosen = _by_policy(job, job.policy, inputs, candidates)
        order = np.argsort(chosen.positions)
        subset = Subset(
            ids=inputs.ids[chosen.positions[order]],
            weights=chosen.weights[order],
            scores=None if chosen.scores is None else chosen.scores[order],
            metadata=_metadata(job, inputs, chosen),
        )
        difference = _difference(job, inputs, chosen.positions)
        write(subset)
        # The last: where this file is, all is there.
        write_subset(job.out, subset)
        return SelectReport(
            out=str(job.out),
            rows=None if job.rows is None else str(job.rows),
            policy=None if job.policy is None else policy_to_table(job.policy),
            num_examples=len(inputs.ids),
            num_candidates=len(inputs.ids) if candidates is None else len(candidates),
            num_selected=len(subset.ids),
            stats=chosen.stats,
            difference=difference,
            seconds=time.perf_counter() - started,
        )


def _check_new(path: Path | None, scores: Iterable[Path | None]) -> None:
    if path is None:
        return
    check_none(path)
    if not path.parent.is_dir():
        msg = f"cannot write {str(path)!r}: no folder {str(path.parent)!r}"
        raise StorageError(msg)
    folder = path.parent.resolve()
    if any(each is not None and each.resolve() == folder for each in scores):
        msg = (
            f"{str(path)!r} would be in the folder of the scores, and be taken for a "
            "part of them: choose another folder"
        )
        raise ConfigError(msg)


def _writer_of_rows(
    job: SelectJob, config: Config | None, pool: Pool | None
) -> Callable[[Subset], None]:
    """Returns what writes the rows of a subset, if they are wanted; checks that it can.

    Raises:
        ConfigError: It cannot.
    """
    if job.rows is None or job.pool is None or config is None or pool is None:
        return lambda subset: None
    path, spec = job.rows, config.pools[job.pool]
    format = row_format(path, pool, spec)
    return lambda subset: write_rows(path, format, pool, subset)


def _candidates(where: str, inputs: Inputs) -> Int64[np.ndarray, " C"]:
    """Returns the positions of the examples that meet a condition."""
    found = np.flatnonzero(meets(where, inputs.values))
    if not len(found):
        msg = f"where: none of {len(inputs.ids):,} examples meets {where!r}"
        raise ConfigError(msg)
    return found


def _all_of(candidates: Int64[np.ndarray, " C"] | None, num_examples: int) -> _Chosen:
    positions = np.arange(num_examples) if candidates is None else candidates
    return _Chosen(positions, np.ones(len(positions), np.float32), None, {})


def _by_policy(
    job: SelectJob,
    policy: Policy,
    inputs: Inputs,
    candidates: Int64[np.ndarray, " C"] | None,
) -> _Chosen:
    """Returns what the policy selects, of all candidates or of block after block."""
    needs = policy.needs - {"memory"}
    inputs.check(needs, f"policy {policy!r}")
    num_candidates = len(inputs.ids) if candidates is None else len(candidates)
    num_selected = job.size_of(len(inputs.ids))
    if num_selected is not None and num_selected > num_candidates:
        meet = "" if candidates is None else " that meet the condition"
        msg = (
            f"num_selected={num_selected:,} is above the {num_candidates:,} examples"
            f"{meet}"
        )
        raise ConfigError(msg)
    features = {name: inputs.feature(name) for name in sorted(needs)}
    if isinstance(policy, DomainQuota) and policy.quotas is not None:
        domains = features[f"pool.{policy.domain}"]
        _check_quotas(policy.quotas, np.asarray(domains))
    memory = np.empty((0, 1), np.float32)
    parts: list[_Chosen] = []
    for step, (block, size) in enumerate(_blocks(job, num_candidates, num_selected)):
        if size == 0:  # fewer are wanted than there are blocks
            continue
        rows = block
        if candidates is not None:
            rows = candidates if block is None else candidates[block]
        given = {name: _taken(value, rows) for name, value in features.items()}
        if isinstance(policy, RememberingPolicy):
            given["memory"] = memory
        ids = inputs.ids if rows is None else inputs.ids[rows]
        chosen, remember = _select(job, policy, ids, given, size, step)
        if isinstance(policy, RememberingPolicy) and remember is not None:
            if len(memory) == 0:
                memory = remember[:0]
            memory = np.concatenate([memory, remember])[-policy.memory_rows :]
        positions = chosen.positions if rows is None else rows[chosen.positions]
        parts.append(dataclasses.replace(chosen, positions=positions))
    chosen = parts[0] if len(parts) == 1 else _joined(parts)
    if job.threshold is not None:
        chosen = dataclasses.replace(chosen, stats=_stats_above(chosen))
    if not len(chosen.positions):
        msg = (
            f"threshold: no example has a score of at least {job.threshold}; see what "
            "scores there are with num_selected=1"
        )
        raise ConfigError(msg)
    return chosen


def _blocks(
    job: SelectJob, num_candidates: int, num_selected: int | None
) -> Iterator[tuple[Int64[np.ndarray, " B"] | None, int]]:
    """Yields the candidates of each draw, and how many to draw; None for all."""
    size = job.super_batch_size
    if size is None or size >= num_candidates:
        size = num_candidates
    total = num_candidates if num_selected is None else num_selected
    if job.super_batch_size is None:
        yield None, total
        return
    run = Run(num_examples=num_candidates, super_batch_size=size, seed=job.seed)
    plan = Uniform().start(run).plan(0)
    for start in range(0, num_candidates, size):
        stop = min(start + size, num_candidates)
        # In whole numbers, so that they add up to the total.
        wanted = total * stop // num_candidates - total * start // num_candidates
        yield plan.take(start, stop)[0], wanted


def _select(
    job: SelectJob,
    policy: Policy,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    size: int,
    step: int,
) -> tuple[_Chosen, Float32[np.ndarray, "rows width"] | None]:
    """Returns one draw of a policy, and what it wants to remember."""
    try:
        selection = policy.select(ids, features, size, Noise(job.seed, step))
    except FeatureError:
        raise
    except ValueError as error:
        msg = f"policy: {error}"
        raise ConfigError(msg) from error
    kept = _kept(job, selection)
    scores = selection.scores
    chosen = _Chosen(
        positions=selection.indices[kept],
        weights=selection.weights[kept],
        scores=None if scores is None else scores[kept].astype(np.float32),
        stats=dict(selection.stats),
    )
    return chosen, selection.remember


def _kept(job: SelectJob, selection: Selection) -> Bool[np.ndarray, " K"]:
    """Returns which examples of a draw are in the subset: all, or those above."""
    stats = selection.stats
    if job.threshold is not None:
        if selection.scores is None:
            msg = f"threshold: {job.policy!r} gives no scores; say num_selected"
            raise ConfigError(msg)
        return selection.scores >= job.threshold
    if stats.get("num_topped_up", 0.0) > 0:
        num_usable = len(selection.indices) - int(stats["num_topped_up"])
        block = "" if job.super_batch_size is None else " of a super-batch"
        msg = (
            f"num_selected: {len(selection.indices):,} examples{block} are wanted, and "
            f"{num_usable:,} can be selected; {int(stats['num_quarantined']):,} have a "
            "feature that is not finite. Select fewer"
        )
        raise ConfigError(msg)
    return np.ones(len(selection.indices), bool)


def _stats_above(chosen: _Chosen) -> dict[str, float]:
    """Returns the statistics of what is above a threshold.

    The policy's own are of its ranking of all candidates.
    """
    stats = {"num_quarantined": chosen.stats.get("num_quarantined", 0.0)}
    if chosen.scores is not None and len(chosen.scores):
        stats["score_mean"] = float(chosen.scores.mean(dtype=np.float64))
    return stats


def _check_quotas(quotas: Mapping[str, float], domains: np.ndarray) -> None:
    """Checks that there are the domains that have a share: a session cannot know."""
    known = sorted(set(domains.astype(str).tolist()))
    for name, share in quotas.items():
        if share and name not in known:
            msg = (
                f"policy: quotas names {name!r}, and no example is of that domain"
                f"{did_you_mean(name, known)}"
            )
            raise ConfigError(msg)


def _joined(parts: list[_Chosen]) -> _Chosen:
    scores = [part.scores for part in parts if part.scores is not None]
    names = sorted({name for part in parts for name in part.stats})
    stats: dict[str, float] = {}
    for name in names:
        found = [part.stats[name] for part in parts if name in part.stats]
        stats[name] = sum(found) / (1 if name in _SUMMED else len(found))
    return _Chosen(
        positions=np.concatenate([part.positions for part in parts]),
        weights=np.concatenate([part.weights for part in parts]),
        scores=np.concatenate(scores) if scores else None,
        stats=stats,
    )


def _taken(feature: Feature, rows: Int64[np.ndarray, " B"] | None) -> Feature:
    if rows is None:
        return feature
    if isinstance(feature, PairEmbeddings):
        return dataclasses.replace(
            feature, queries=feature.queries[rows], targets=feature.targets[rows]
        )
    return feature[rows]


def _metadata(job: SelectJob, inputs: Inputs, chosen: _Chosen) -> dict[str, object]:
    """Returns what a subset says of itself: all that it depends on."""
    fingerprints = [scores.pool_fingerprint for scores in inputs.scores.values()]
    return {
        "format": _FORMAT,
        "policy": None if job.policy is None else policy_to_table(job.policy),
        "where": job.where,
        "threshold": job.threshold,
        "seed": job.seed,
        "super_batch_size": job.super_batch_size,
        "num_examples": len(inputs.ids),
        "num_selected": len(chosen.positions),
        "scores": {
            role: {
                "pool_fingerprint": scores.pool_fingerprint,
                "model_fingerprint": scores.model_fingerprint,
            }
            for role, scores in inputs.scores.items()
        },
        "pool_fingerprint": next((it for it in fingerprints if it is not None), None),
        "stats": chosen.stats,
        "versions": {"batch-curator": curator.__version__},
    }


def _difference(
    job: SelectJob, inputs: Inputs, positions: Int64[np.ndarray, " K"]
) -> Difference:
    """Compares the subset with all examples that have scores."""
    is_chosen = np.zeros(len(inputs.ids), bool)
    is_chosen[positions] = True
    numbers = [
        compare_numbers(name, inputs.values(name), is_chosen)
        for name in _compared_names(job, inputs)
    ]
    categories: list[CategoryDifference] = []
    columns = comparable(inputs.columns, job.compare)
    if columns:
        more, categories = compare_columns(inputs.blocks(columns), is_chosen, columns)
        numbers += more
    return Difference(
        num_examples=len(is_chosen),
        num_selected=len(positions),
        numbers=numbers,
        categories=categories,
    )


def _compared_names(job: SelectJob, inputs: Inputs) -> list[str]:
    """Returns all numbers that there are, and the score if it is none of them."""
    names = list(inputs.names)
    score = getattr(job.policy, "score", None)
    is_scalar = getattr(job.policy, "loss", None) == "scalar"
    if is_scalar and score in SCORES and len(SCORES[score].terms) > 1:
        names.append(score)
    return names
