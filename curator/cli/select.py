"""``curator select``: selects a subset of a scored pool, to a Parquet file."""

from __future__ import annotations

import argparse
import dataclasses
import math
from fractions import Fraction
from typing import TYPE_CHECKING

from curator.cli.command import (
    Command,
    add_json,
    add_options,
    file_path,
    names,
    options_table,
    positive,
    print_json,
)
from curator.cli.pool import add_pool, pool_of
from curator.cli.progress import progress_shown
from curator.config import parse_policy
from curator.errors import ConfigError
from curator.policies import Policy

if TYPE_CHECKING:
    from curator.offline import (
        CategoryDifference,
        NumberDifference,
        SelectJob,
        SelectReport,
    )

__all__ = ["COMMAND", "add_arguments", "select"]

_SHOWN_QUANTILES = ("5%", "50%", "95%")
_SHOWN_VALUES = 10
_MAX_NAME = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "scores",
        metavar="SCORES",
        nargs="?",
        type=file_path,
        help="what one model says: a folder of 'curator score', or a Parquet file",
    )
    for role in ("learner", "reference"):
        parser.add_argument(
            f"--{role}",
            metavar="SCORES",
            type=file_path,
            help=f"what the {role} says, where a policy reads two models",
        )
    parser.add_argument("--policy", metavar="NAME", help="which examples are preferred")
    add_options(parser, "the policy", "-o score=loss -o beta=2")
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument(
        "--num-selected", metavar="K", type=positive, help="how many are selected"
    )
    how_many.add_argument(
        "--fraction",
        metavar="F",
        type=_fraction,
        help="how many, of all that have scores: 0.1 or 1/3, rounded down",
    )
    how_many.add_argument(
        "--threshold",
        metavar="X",
        type=float,
        help="all that the policy gives a score of at least X",
    )
    parser.add_argument(
        "--where",
        metavar="CONDITION",
        help="only examples of which it is true: 'loss < percentile(loss, 90)'",
    )
    parser.add_argument("--out", required=True, type=file_path, metavar="FILE.parquet")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="0")
    parser.add_argument(
        "--super-batch-size",
        metavar="B",
        type=positive,
        help="select from blocks of B in random order, as a session does",
    )
    add_pool(parser, "the pool that was scored")
    parser.add_argument(
        "--compare",
        metavar="COLUMN,...",
        help="columns of the pool that the report compares; by default all but bytes",
    )
    parser.add_argument(
        "--rows",
        metavar="PATH",
        type=file_path,
        help="also write the rows of the subset: .parquet, .arrow, .jsonl, .tar, ...; "
        "a name without an ending is a folder of the pool's own format",
    )
    add_json(parser, "the report")


def select(arguments: argparse.Namespace) -> int:
    """Selects a subset, and says how it differs from the whole.

    Raises:
        CuratorError: As for :func:`curator.offline.select`.
    """
    # Imported here, so that `curator --help` needs no Arrow.
    from curator import offline

    if arguments.compare is not None and not names(arguments.compare):
        msg = f"compare: no name in {arguments.compare!r}"
        raise ConfigError(msg)
    config, pool = pool_of(arguments)
    job = offline.SelectJob(
        out=arguments.out,
        scores=arguments.scores,
        learner=arguments.learner,
        reference=arguments.reference,
        policy=_policy(arguments.policy, arguments.option),
        num_selected=arguments.num_selected,
        fraction=arguments.fraction,
        threshold=arguments.threshold,
        where=arguments.where,
        seed=arguments.seed,
        super_batch_size=arguments.super_batch_size,
        pool=pool,
        compare=None if arguments.compare is None else names(arguments.compare),
        rows=arguments.rows,
    )
    with progress_shown():
        report = offline.select(job, config)
    if arguments.json:
        print_json(dataclasses.asdict(report))
    else:
        print(_text(report, job), flush=True)
    return 0


def _policy(name: str | None, options: list[tuple[str, object]]) -> Policy | None:
    """Returns the policy, by the code that reads a session's.

    Raises:
        ConfigError: There is no such policy or field, or a value does not fit.
    """
    if name is None:
        if options:
            msg = f"option {options[0][0]!r}: of a policy; name one with --policy"
            raise ConfigError(msg)
        return None
    if any(key == "name" for key, _ in options):
        msg = "option 'name': --policy says it; leave the option out"
        raise ConfigError(msg)
    return parse_policy({"name": name, **options_table(options)})


def _fraction(text: str) -> Fraction:
    """Returns exactly the number that is written."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        msg = f"expected a number such as 0.1 or 1/3; got {text!r}"
        raise argparse.ArgumentTypeError(msg) from None


def _text(report: SelectReport, job: SelectJob) -> str:
    """Returns what is printed: counts, then a table of differences."""
    by = "" if job.policy is None else f" by {job.policy!r}"
    counts = f"{report.num_selected:,} of {report.num_examples:,} examples"
    lines = [f"selected {counts}{by} in {report.seconds:.1f} s: {report.out}"]
    if report.rows is not None:
        lines.append(f"  their rows: {report.rows}")
    num_out = report.num_examples - report.num_candidates
    if num_out:
        lines.append(f"  {num_out:,} do not meet {job.where!r}")
    stats = dict(report.stats)
    num_quarantined = stats.pop("num_quarantined", 0.0)
    stats.pop("num_topped_up", None)
    if num_quarantined:
        lines.append(
            f"  {num_quarantined:,.0f} have a feature that is not finite, and were put "
            "aside"
        )
    if stats:
        named = ", ".join(f"{key} {_number(stats[key])}" for key in sorted(stats))
        lines.append(f"  {named}")
    lines += _numbers(report.difference.numbers)
    for category in report.difference.categories:
        lines += _category(category, report)
    return "\n".join(lines)


def _numbers(numbers: list[NumberDifference]) -> list[str]:
    if not numbers:
        return []
    shown = [_short(number.name) for number in numbers]
    width = max(len(name) for name in shown)
    header = "".join(f" {name:>10}" for name in ("mean", *_SHOWN_QUANTILES))
    lines = ["", f"{'':{width}}  {'':6}{header}"]
    for name, number in zip(shown, numbers, strict=True):
        for part, summary in (("whole", number.whole), ("subset", number.subset)):
            found = [summary.mean, *map(summary.quantiles.get, _SHOWN_QUANTILES)]
            cells = "".join(f" {_number(value):>10}" for value in found)
            lines.append(f"{name if part == 'whole' else '':{width}}  {part:6}{cells}")
    return lines


def _category(category: CategoryDifference, report: SelectReport) -> list[str]:
    values = [_short(value) for value in category.values[:_SHOWN_VALUES]]
    rows = list(
        zip(values, category.whole_counts, category.subset_counts, strict=False)
    )
    num_rest = category.num_values - len(rows)
    if num_rest:
        whole_rest = report.num_examples - sum(row[1] for row in rows)
        subset_rest = report.num_selected - sum(row[2] for row in rows)
        rows.append((f"{num_rest:,} more", whole_rest, subset_rest))
    width = max(len(category.name), *(len(row[0]) + 2 for row in rows))
    lines = ["", f"{category.name:{width}}{'whole':>11}{'subset':>11}"]
    for value, whole, subset in rows:
        shares = (whole / report.num_examples, subset / max(report.num_selected, 1))
        cells = "".join(f"{f'{share:.2%}':>11}" for share in shares)
        lines.append(f"  {value:{width - 2}}{cells}")
    return lines


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _short(text: str) -> str:
    text = " ".join(text.split())
    # A terminal would obey what the data says.
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 3]}..."


COMMAND = Command(
    name="select",
    help="select a subset of a scored pool",
    description="Select a subset of what 'curator score' has scored, by a policy, a "
    "condition or both, and say how it differs from the whole. See docs/select.md.",
    example="curator select scores --policy topk -o score=easy_reference "
    "--fraction 0.1 --out subset.parquet",
    add_arguments=add_arguments,
    run=select,
)
