"""``curator plan``: what a sampler would do in an epoch."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.cli.command import (
    Command,
    add_json,
    add_options,
    file_path,
    options_table,
    positive,
    print_json,
)
from curator.cli.plan_batches import (
    BATCH_OPTIONS,
    add_batch_arguments,
    plan_batches,
)
from curator.cli.progress import progress_shown
from curator.config import (
    Config,
    SessionSpec,
    did_you_mean,
    load_config,
    parse_sampler,
    sampler_to_table,
)
from curator.errors import ConfigError
from curator.samplers import Sampler

if TYPE_CHECKING:
    from curator.offline import PlanReport

__all__ = ["COMMAND", "plan"]

_DEFAULT_SUPER_BATCH_SIZE = 256


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sampler", metavar="NAME", help="what plans, such as rs2")
    add_options(parser, "the sampler or of --batches", "-o prune_ratio=0.3")
    parser.add_argument(
        "--losses",
        metavar="LOSSES",
        type=file_path,
        help="Parquet with example_id, loss and perhaps step and epoch, such as "
        "'curator inspect --export' writes, or a folder of 'curator score'",
    )
    parser.add_argument("--loss", metavar="COLUMN", help="where the losses are; loss")
    parser.add_argument("--epoch", metavar="E", type=int, help="which one, from 0")
    parser.add_argument(
        "--out", metavar="PLAN.parquet", type=file_path, help="the plan"
    )
    parser.add_argument(
        "--config",
        metavar="CONFIG.toml",
        help="a configuration, which has the pool or the session",
    )
    parser.add_argument(
        "--session",
        metavar="NAME",
        help="takes sampler, pool, seed and all else from a session",
    )
    parser.add_argument(
        "--pool", metavar="NAME", help="the pool, where it has to be read"
    )
    parser.add_argument(
        "--num-examples", metavar="N", type=positive, help="size of the pool"
    )
    parser.add_argument(
        "--super-batch-size",
        metavar="B",
        type=positive,
        help=f"candidates of a step; {_DEFAULT_SUPER_BATCH_SIZE}",
    )
    parser.add_argument("--seed", metavar="N", type=int, help="of the run; 0")
    parser.add_argument(
        "--num-epochs",
        metavar="N",
        type=positive,
        help="length of the run; of --batches without --epoch all of them",
    )
    parser.add_argument(
        "--max-ahead",
        metavar="N",
        type=int,
        help="steps that are not reported yet when an epoch is planned; 0",
    )
    parser.add_argument(
        "--weighting", choices=("sum", "mean"), help="what weights preserve; sum"
    )
    add_batch_arguments(parser)
    add_json(parser)


def plan(arguments: argparse.Namespace) -> int:
    """Plans an epoch, by a sampler or in whole batches, and says what is in it.

    Returns:
        0.

    Raises:
        CuratorError: As for :func:`curator.offline.plan`.
    """
    if arguments.batches is not None:
        return plan_batches(arguments)
    # Imported here, so that `curator --help` needs no Arrow.
    from curator import offline

    for option in BATCH_OPTIONS:
        if getattr(arguments, option) is not None:
            msg = f"--{option.replace('_', '-')}: of whole batches; add --batches NAME"
            raise ConfigError(msg)
    if arguments.epoch is None:
        msg = "epoch: which one, from 0 (--epoch E)"
        raise ConfigError(msg)
    config = None if arguments.config is None else load_config(arguments.config)
    session = _session(config, arguments.session)
    sampler = _sampler(arguments, session)
    pool_name = arguments.pool or (None if session is None else session.pool)
    if pool_name is not None and config is None:
        msg = f"pool {pool_name!r}: name the configuration that has it (--config)"
        raise ConfigError(msg)
    if pool_name is not None and arguments.num_examples is not None:
        msg = f"num_examples: pool {pool_name!r} says it itself; leave one of them out"
        raise ConfigError(msg)
    given = session or SessionSpec(pool="", batch_size=_DEFAULT_SUPER_BATCH_SIZE)

    def value(name: str) -> Any:
        option = getattr(arguments, name)
        return getattr(given, name) if option is None else option

    losses = (
        None
        if arguments.losses is None
        else offline.read_losses(arguments.losses, arguments.loss or "loss")
    )
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(progress_shown())
        pool = None
        if config is not None and pool_name is not None:
            opened = offline.open_configured_pool(config, pool_name)
            pool = (pool_name, cleanup.enter_context(opened))
        run = offline.plan_run(
            sampler,
            pool=pool,
            losses=losses,
            num_examples=arguments.num_examples,
            super_batch_size=value("super_batch_size"),
            seed=value("seed"),
            num_epochs=value("num_epochs"),
        )
        job = offline.PlanJob(
            sampler=sampler,
            run=run,
            epoch=arguments.epoch,
            losses=losses,
            max_ahead=value("max_ahead"),
            weighting=arguments.weighting or given.weighting,
            pool_fingerprint=None if pool is None else pool[1].fingerprint,
            out=arguments.out,
        )
        report = offline.plan(job)
    if arguments.json:
        print_json(dataclasses.asdict(report))
    else:
        print(_text(report, arguments.out), flush=True)
    return 0


def _session(config: Config | None, name: str | None) -> SessionSpec | None:
    if name is None:
        return None
    if config is None:
        msg = f"session {name!r}: name the configuration that has it (--config)"
        raise ConfigError(msg)
    if name not in config.sessions:
        msg = f"no session {name!r}{did_you_mean(name, config.sessions)}"
        raise ConfigError(msg)
    return config.sessions[name]


def _sampler(arguments: argparse.Namespace, session: SessionSpec | None) -> Sampler:
    """Returns the sampler of a name and fields, or of a session with other fields."""
    options = options_table(arguments.option)
    if "name" in options:
        msg = "option 'name': --sampler says it; leave the option out"
        raise ConfigError(msg)
    if arguments.sampler is not None:
        return parse_sampler({**options, "name": arguments.sampler})
    if session is None:
        msg = "sampler: name one, or a session that has one"
        raise ConfigError(msg)
    return parse_sampler({**sampler_to_table(session.sampler), **options})


def _text(report: PlanReport, out: Path | None) -> str:
    fields = ", ".join(
        f"{key} = {value}" for key, value in report.sampler.items() if key != "name"
    )
    what = f"{report.sampler['name']}{f' ({fields})' if fields else ''}"
    share = 100 * report.num_planned / report.num_examples
    last = report.first_step + report.num_steps - 1
    planned = f"{report.num_planned:,} of {report.num_examples:,} examples"
    steps = f"{report.num_steps:,} of {report.super_batch_size:,} candidates"
    tail = f"{report.num_not_offered:,} examples at the end make no super-batch"
    lines = [
        f"epoch {report.epoch} of {what}",
        f"planned    {planned} ({share:.1f} %); {report.num_left_out:,} left out",
        f"steps      {steps}: {report.first_step:,} to {last:,}; {tail}",
    ]
    if report.weights:
        each = ", ".join(
            f"{weight:.6g} x {count:,}" for weight, count in report.weights
        )
        lines.append(f"weights    {each}; mean {report.mean_weight:.6g}")
    else:
        lines.append(
            f"weights    {report.min_weight:.6g} to {report.max_weight:.6g}, mean "
            f"{report.mean_weight:.6g}"
        )
    if report.num_losses is None:
        lines.append("losses     not read by this sampler")
    else:
        means = [
            f"mean {'-' if mean is None else f'{mean:.6g}'} of what is {which}"
            for mean, which in (
                (report.mean_loss, "offered"),
                (report.mean_loss_left_out, "left out"),
            )
        ]
        lines.append(
            f"losses     of {report.num_losses:,} examples; {', '.join(means)}"
        )
    if report.num_new is not None and report.num_gone is not None:
        lines.append(
            f"changes    {report.num_new:,} examples that epoch {report.epoch - 1} did "
            f"not offer, without {report.num_gone:,} that it did"
        )
    if out is not None:
        lines.append(f"written    {out}, {(report.num_bytes or 0) / 1e6:,.1f} MB")
    return "\n".join(lines)


COMMAND = Command(
    name="plan",
    help="show what a sampler would do in an epoch, or plan whole batches",
    description="Show which examples a sampler would offer in an epoch, in which "
    "order and with which weights, and write them to a file. Or plan whole batches of "
    "examples that are hard together (--batches). See docs/plan.md.",
    example="curator plan --sampler infobatch -o anneal=0.0 --losses losses.parquet "
    "--epoch 1 --out plan.parquet",
    add_arguments=_add_arguments,
    run=plan,
)
