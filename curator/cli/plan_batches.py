"""``curator plan --batches``: whole batches of examples that are hard together."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from curator.cli.command import file_path, options_table, positive, print_json
from curator.cli.progress import progress_shown
from curator.config import load_config, parse_batches
from curator.errors import ConfigError
from curator.samplers import BATCH_PLANNERS

if TYPE_CHECKING:
    from curator.offline import BatchPlanReport

__all__ = ["BATCH_OPTIONS", "add_batch_arguments", "plan_batches"]

BATCH_OPTIONS = ("scores", "batch_size", "subset")
"""Arguments of batch plans alone."""

_SAMPLER_OPTIONS = (
    "sampler",
    "losses",
    "loss",
    "session",
    "num_examples",
    "super_batch_size",
    "max_ahead",
    "weighting",
)


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that only batch plans have."""
    group = parser.add_argument_group(
        "whole batches, planned from embeddings instead of by a sampler",
        # Not wrapped, so that it can be copied.
        "curator plan --batches b3 --scores scores --batch-size 1024 --num-epochs 10 "
        "--out plan.parquet",
    )
    group.add_argument(
        "--batches",
        metavar="NAME",
        help=f"how: {' or '.join(BATCH_PLANNERS)}; -o sets its fields",
    )
    group.add_argument(
        "--scores",
        metavar="SCORES",
        type=file_path,
        help="has the embeddings: a folder of 'curator score', or a Parquet file",
    )
    group.add_argument(
        "--batch-size", metavar="K", type=positive, help="examples of a batch"
    )
    group.add_argument(
        "--subset",
        metavar="SUBSET",
        type=file_path,
        help="only examples that 'curator select' has selected, with their weights",
    )


def plan_batches(arguments: argparse.Namespace) -> int:
    """Plans the batches of an epoch or of a run, and says what they are like.

    Returns:
        0.

    Raises:
        CuratorError: As for :func:`curator.offline.plan_batches`.
    """
    # Imported here, so that `curator --help` needs no Arrow.
    from curator import offline

    for option in _SAMPLER_OPTIONS:
        if getattr(arguments, option) is not None:
            msg = f"--{option.replace('_', '-')}: of a sampler, and not of --batches"
            raise ConfigError(msg)
    options = options_table(arguments.option)
    if "name" in options:
        msg = "option 'name': --batches says it; leave the option out"
        raise ConfigError(msg)
    batches = parse_batches({**options, "name": arguments.batches})
    if arguments.scores is None:
        msg = "scores: expected SCORES, which have the embeddings (--scores SCORES)"
        raise ConfigError(msg)
    if arguments.batch_size is None:
        msg = "batch_size: how many examples a batch has (--batch-size K)"
        raise ConfigError(msg)
    if (arguments.pool is None) != (arguments.config is None):
        msg = "pool: --config and --pool go together, the one has the other"
        raise ConfigError(msg)
    job = offline.BatchPlanJob(
        batches=batches,
        scores=arguments.scores,
        batch_size=arguments.batch_size,
        epoch=arguments.epoch,
        num_epochs=arguments.num_epochs,
        subset=arguments.subset,
        pool=arguments.pool,
        seed=arguments.seed or 0,
        out=arguments.out,
    )
    config = None if arguments.config is None else load_config(arguments.config)
    with progress_shown():
        report = offline.plan_batches(job, config)
    if arguments.json:
        print_json(dataclasses.asdict(report))
    else:
        print(_text(report, arguments.out), flush=True)
    return 0


def _text(report: BatchPlanReport, out: Path | None) -> str:
    fields = ", ".join(
        f"{key} = {value}" for key, value in report.batches.items() if key != "name"
    )
    last = report.first_epoch + report.num_epochs - 1
    epochs = f"epoch {last}" if report.num_epochs == 1 else f"epochs 0 to {last}"
    num_planned = report.num_batches * report.batch_size
    planned = f"{num_planned:,} of {report.num_examples:,} examples in each epoch"
    left = f"{report.num_left_out:,} left over"
    if report.num_quarantined:
        left += f", {report.num_quarantined:,} without a finite embedding"
    batches = f"{report.num_batches:,} of {report.batch_size:,} in each epoch"
    last_step = report.first_step + report.num_epochs * report.num_batches - 1
    lines = [
        f"{epochs} of {report.batches['name']} ({fields})",
        f"planned    {planned}; {left}",
        f"batches    {batches}: steps {report.first_step:,} to {last_step:,}",
        f"clusters   {_clusters(report)}",
    ]
    found, random = report.negatives, report.random_negatives
    if found is not None and random is not None:
        lines.append(
            f"negatives  mean cosine {found.mean:.3f}, hardest {found.hardest:.3f} (in "
            f"random batches {random.mean:.3f} and {random.hardest:.3f})"
        )
    if out is not None:
        lines.append(f"written    {out}, {(report.num_bytes or 0) / 1e6:,.1f} MB")
    return "\n".join(lines)


def _clusters(report: BatchPlanReport) -> str:
    stats = report.stats
    count = f"{stats['num_clusters']:,.0f} of {report.batches['cluster_size']}"
    if "similarity" in stats:
        cosine = stats["similarity"]
        return f"{count}; mean cosine of an example and its centre {cosine:.3f}"
    pairs = f"{stats['num_edges']:,.0f} pairs of hard negatives"
    num_usable = report.num_examples - report.num_quarantined
    random = (report.batch_size - 1) / max(num_usable - 1, 1)
    return (
        f"{count}; {stats['within_fraction']:.1%} of {pairs} are in one, and "
        f"{random:.1%} in a random batch; {stats['num_isolated']:,.0f} examples have "
        "none"
    )
