"""``curator score``: scores a pool once, to Parquet files."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from curator.cli.command import (
    Command,
    add_json,
    file_path,
    names,
    positive,
    print_json,
)
from curator.cli.progress import progress_shown
from curator.config import Config, load_config, one_off_config
from curator.errors import ConfigError

if TYPE_CHECKING:
    from curator.offline import Progress, ScoreEstimate, ScoreJob, ScoreReport

__all__ = ["COMMAND", "add_arguments", "score"]

_STOPS = (signal.SIGINT, signal.SIGTERM)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "what",
        metavar="POOL|CONFIG.toml",
        help="the files of a pool, or a configuration that has it (with --pool)",
    )
    parser.add_argument("--pool", metavar="NAME", help="of the configuration")
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL.toml|NAME",
        help="what scores it: a file with the keys of a model; of a configuration, the "
        "model's name",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=file_path,
        metavar="FOLDER",
        help="where the scores go",
    )
    parser.add_argument(
        "--outputs",
        metavar="NAME,...",
        help="what is computed; by default all that the model gives but 'projection'",
    )
    parser.add_argument(
        "--where",
        metavar="EXPR",
        help="only examples whose columns meet a condition, such as "
        "'lang == \"en\" and length < 512'",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="only the first N examples of them"
    )
    parser.add_argument(
        "--columns",
        metavar="NAME,...",
        help="columns of the pool that are copied beside the scores",
    )
    parser.add_argument(
        "--shard-size", type=positive, metavar="N", help="examples per file; 16384"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what it would cost; write nothing"
    )
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        help="where the model runs, instead of the configuration's server.executor",
    )
    add_json(parser)


def score(arguments: argparse.Namespace) -> int:
    """Scores a pool, or says what that would cost.

    SIGINT and SIGTERM let it finish the file at hand; a second one ends it at once.

    Returns:
        0 when every example is scored; 130 or 143 after SIGINT or SIGTERM, when some
        are left.

    Raises:
        CuratorError: As for :func:`curator.offline.score`.
    """
    # Imported here, so that `curator --help` needs no Arrow.
    from curator import offline

    config, pool, model = _config(arguments)
    for name in ("columns", "outputs"):
        value = getattr(arguments, name)
        if value is not None and not names(value):
            msg = f"{name}: no name in {value!r}"
            raise ConfigError(msg)
    job = offline.ScoreJob(
        pool=pool,
        model=model,
        out=arguments.out,
        outputs=None if arguments.outputs is None else names(arguments.outputs),
        where=arguments.where,
        limit=arguments.limit,
        columns=names(arguments.columns or ""),
        shard_size=arguments.shard_size or offline.DEFAULT_SHARD_SIZE,
    )
    if arguments.dry_run:
        with progress_shown():
            estimate = offline.estimate(config, job)
        _print(estimate, _estimate_text(estimate, job), as_json=arguments.json)
        return 0
    stops: list[int] = []
    previous = {number: signal.getsignal(number) for number in _STOPS}

    def stop(number: int, _: FrameType | None) -> None:
        stops.append(number)
        for each in _STOPS:  # the next one ends the process, which costs that file
            signal.signal(each, signal.SIG_DFL)
        # Not print: the signal may have come while something else was printed.
        os.write(sys.stderr.fileno(), b"\nstopping after the file at hand\n")

    for number in _STOPS:
        signal.signal(number, stop)
    try:
        with progress_shown() as line:
            report = offline.score(
                config,
                job,
                on_progress=lambda progress: line.show(_progress_text(progress)),
                should_stop=lambda: bool(stops),
            )
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    _print(report, _report_text(report, job), as_json=arguments.json)
    return 0 if report.is_finished else 128 + stops[0]


def _config(arguments: argparse.Namespace) -> tuple[Config, str, str]:
    """Returns a configuration, and which pool and model of it are meant.

    Raises:
        ConfigError: It says something wrong, or the two do not go together.
    """
    what, model, executor = arguments.what, arguments.model, arguments.executor
    if arguments.pool is not None:
        try:
            return load_config(what, executor=executor), arguments.pool, model
        except ConfigError as error:
            if what.endswith(".toml"):
                raise
            msg = (
                f"{error}. --pool NAME is of a configuration, CONFIG.toml; beside the "
                "files of a pool leave it out"
            )
            raise ConfigError(msg) from error
    if what.endswith(".toml"):
        msg = f"pool: which one of {what!r}? Name it (--pool NAME)"
        raise ConfigError(msg)
    if not model.endswith(".toml"):
        msg = (
            f"model: expected MODEL.toml beside the files of a pool; got {model!r}. "
            "The name of a model is of a configuration (CONFIG.toml --pool NAME)"
        )
        raise ConfigError(msg)
    from curator.pools import guess_format

    return one_off_config(what, guess_format(what), Path(model), executor=executor)


def _progress_text(progress: Progress) -> str:
    done = progress.num_ready + progress.num_scored
    return (
        f"{done:,} of {progress.num_examples:,} examples "
        f"({100 * done / progress.num_examples:.1f} %), {progress.rate:,.0f}/s, "
        f"{_duration(progress.seconds_left)} left"
    )


def _report_text(report: ScoreReport, job: ScoreJob) -> str:
    if report.num_ready == report.num_examples:
        return f"all {report.num_examples:,} examples are in {job.out} already"
    rate = report.num_scored / report.seconds if report.seconds > 0.0 else 0.0
    scored = f"scored {report.num_scored:,} of {report.num_examples:,} examples"
    took = f"{_duration(report.seconds)} ({rate:,.0f}/s)"
    written = f"{report.num_bytes / 1e6:,.1f} MB written to {job.out}"
    lines = [
        f"{scored} of {job.pool!r} by {job.model!r} in {took}",
        f"  {', '.join(report.outputs)}: {written}, {report.device_seconds:.1f} s busy",
    ]
    if report.num_ready:
        lines.append(f"  {report.num_ready:,} were scored before")
    lines += [
        f"  {name} is not finite for {count:,} examples"
        for name, count in report.not_finite.items()
        if count
    ]
    if not report.is_finished:
        left = report.num_examples - report.num_ready - report.num_scored
        lines.append(f"  {left:,} are left: run the same command again to continue")
    return "\n".join(lines)


def _estimate_text(estimate: ScoreEstimate, job: ScoreJob) -> str:
    return (
        f"would score {estimate.num_examples:,} examples of {job.pool!r} by "
        f"{job.model!r}: {', '.join(estimate.outputs)}\n"
        f"  about {estimate.num_bytes / 1e6:,.1f} MB in {estimate.num_shards:,} files "
        f"in {job.out}\n"
        f"  about {_duration(estimate.seconds)}, {estimate.device_seconds:,.1f} s of "
        f"scoring, going by {estimate.num_tried:,} examples"
    )


def _print(result: ScoreReport | ScoreEstimate, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        print(text, flush=True)


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown time"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


COMMAND = Command(
    name="score",
    help="score a pool once, to Parquet files",
    description="Score every example of a pool with a model, to Parquet files. "
    "Interrupted and run again, it continues.",
    example="curator score pairs.parquet --model model.toml --out scores --dry-run",
    add_arguments=add_arguments,
    run=score,
)
