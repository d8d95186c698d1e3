"""``curator inspect``: which batches, why, how often, and what was dropped."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.cli.command import Command, add_json, file_path, print_json
from curator.cli.progress import progress_shown
from curator.cli.state import find_state
from curator.config import (
    Config,
    SessionSpec,
    did_you_mean,
    parse_session,
    session_to_table,
)
from curator.errors import (
    ConfigError,
    PoolChangedError,
    SessionError,
    UnknownSessionError,
)

if TYPE_CHECKING:
    from curator.ledger import Ledger, StepRecord
    from curator.pools import Pool

__all__ = ["COMMAND", "inspect"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "state",
        metavar="CONFIG.toml|STATE_DIR",
        help="the server's configuration, or its state directory",
    )
    parser.add_argument("session", metavar="SESSION", help="its name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--step", type=int, metavar="S", help="the batch of a step")
    what.add_argument(
        "--example", type=int, metavar="ID", help="every step that an example was in"
    )
    what.add_argument(
        "--dropped", type=int, metavar="S", help="candidates that were not selected"
    )
    what.add_argument(
        "--export",
        type=file_path,
        metavar="FILE.parquet",
        help="write a row per step and example",
    )
    add_json(parser)


def inspect(arguments: argparse.Namespace) -> int:
    """Answers a question from the ledger, which is only read.

    Returns:
        0.

    Raises:
        CuratorError: There is no such session or step, or the ledger cannot be read.
    """
    # Imported here, so that `curator --help` stays quick.
    from curator.ledger import Ledger

    state, config = find_state(arguments.state)
    folder = _folder(state, arguments.session)
    with contextlib.closing(Ledger(folder / "ledger.sqlite", read_only=True)) as ledger:
        if arguments.step is not None:
            result = _step(ledger, _record(ledger, arguments.session, arguments.step))
            lines = _step_lines(result)
        elif arguments.example is not None:
            result = _example(ledger, arguments.example)
            lines = _example_lines(result)
        elif arguments.dropped is not None:
            record = _record(ledger, arguments.session, arguments.dropped)
            result = _dropped(ledger, record, folder, config)
            lines = _dropped_lines(result)
        elif arguments.export is not None:
            result = _export(ledger, arguments.export)
            lines = iter([f"{result['num_rows']:,} rows in {result['path']}"])
        else:
            result = _summary(ledger, arguments.session, folder)
            lines = _summary_lines(result)
        if arguments.json:
            print_json(result)
        else:
            for line in lines:
                print(line)
    return 0


def _folder(state: Path, name: str) -> Path:
    found = {path.parent.name for path in state.glob("sessions/*/ledger.sqlite")}
    if name not in found:
        hint = did_you_mean(name, found)
        msg = f"no session {name!r} in the state directory {str(state)!r}{hint}"
        raise UnknownSessionError(msg)
    return state / "sessions" / name


def _record(ledger: Ledger, name: str, step: int) -> StepRecord:
    first, stop = ledger.first_step(), ledger.num_defined()
    record = ledger.step(step)
    if record is None:
        there = f"it has steps {first} to {stop - 1}" if stop else "no step is defined"
        kept = " (older ones are not kept: server.keep_steps)" if first else ""
        msg = f"session {name!r} has no step {step}: {there}{kept}"
        raise SessionError(msg)
    return record


def _spec(ledger: Ledger) -> SessionSpec:
    known = ledger.meta()
    if "spec" not in known:
        msg = "the session has never been opened: its ledger says nothing yet"
        raise SessionError(msg)
    return parse_session(json.loads(known["spec"]))


# --- summary -------------------------------------------------------------------------


def _summary(ledger: Ledger, name: str, folder: Path) -> dict[str, Any]:
    known = ledger.meta()
    last = ledger.last_snapshot()
    return {
        "session": name,
        "spec": session_to_table(_spec(ledger)),
        "pool_fingerprint": known["pool"],
        "num_examples": _num_examples(known),
        "forked_from": known.get("forked_from"),
        "forked_at": int(known["forked_at"]) if "forked_at" in known else None,
        "first_step": ledger.first_step(),
        "num_defined": ledger.num_defined(),
        "next_step": ledger.next_step(),
        "skipped": [list(part) for part in ledger.skips()],
        "last_snapshot": None if last is None else dataclasses.asdict(last),
        "totals": ledger.totals(),
        "num_bytes": {
            "ledger": _size(folder.glob("ledger.sqlite*")),
            "snapshots": _size(folder.glob("snapshots/*")),
            "plans": _size(folder.glob("plans/*")),
        },
    }


def _num_examples(known: Mapping[str, str]) -> int | None:
    return int(known["num_examples"]) if "num_examples" in known else None


def _size(paths: Iterator[Path]) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # the server deletes, meanwhile
            total += path.stat().st_size
    return total


def _summary_lines(result: Mapping[str, Any]) -> Iterator[str]:
    first, stop = result["first_step"], result["num_defined"]
    yield f"session {result['session']}"
    for key, value in result["spec"].items():
        yield f"  {key} = {json.dumps(value)}"
    count = result["num_examples"]
    of = "of unknown size" if count is None else f"of {count:,} examples"
    yield f"pool       {of}, fingerprint {result['pool_fingerprint'][:16]}"
    if result["forked_from"] is not None:
        yield f"fork       of {result['forked_from']} at step {result['forked_at']:,}"
    kept = f"{first:,} to {stop - 1:,}" if stop else "none"
    yield f"steps      {stop:,} defined, {result['next_step']:,} closed; kept: {kept}"
    skipped = result["skipped"]
    if skipped:
        ranges = ", ".join(f"{start} to {end - 1}" for start, end in skipped[:8])
        more = ", ..." if len(skipped) > 8 else ""
        yield f"skipped    {ranges}{more}"
    last = result["last_snapshot"]
    if last is not None:
        yield (
            f"snapshot   the last one after {last['snapshot_step']:,} learner steps, "
            f"counts from the report of step {last['report_step']:,}"
        )
    for name, total in sorted(result["totals"].items()):
        yield f"total      {name} {_total(total)}"
    sizes = ", ".join(
        f"{name} {size / 1e6:,.1f} MB" for name, size in result["num_bytes"].items()
    )
    yield f"on disk    {sizes}"


def _total(value: int | float) -> str:
    """Returns a count with all its digits, anything else with six."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


# --- a step --------------------------------------------------------------------------


def _step(ledger: Ledger, record: StepRecord) -> dict[str, Any]:
    from curator.ledger import is_skipped, losses, ranks

    reported, scores = losses(ledger, record), record.scores
    return {
        "step": record.step,
        "epoch": record.epoch,
        "snapshot_step": record.snapshot_step,
        "late": record.late,
        "skipped": is_skipped(ledger.skips(), record.step),
        "closed": record.step < ledger.next_step(),
        "stats": dict(record.stats),
        "ids": record.ids.tolist(),
        "weights": record.weights.tolist(),
        "scores": None if scores is None else scores.tolist(),
        "ranks": None if scores is None else ranks(scores).tolist(),
        "losses": None if reported is None else reported.tolist(),
    }


def _step_lines(result: Mapping[str, Any]) -> Iterator[str]:
    snapshot = result["snapshot_step"]
    scored = (
        "no learner scored it"
        if snapshot is None
        else f"scored after {snapshot} learner steps"
    )
    state = "skipped" if result["skipped"] else "closed" if result["closed"] else "open"
    late = ", a uniform draw because scorers were late" if result["late"] else ""
    yield f"step {result['step']} of epoch {result['epoch']}, {state}; {scored}{late}"
    for name, value in sorted(result["stats"].items()):
        yield f"  {name} {_total(value)}"
    yield f"{'row':>5} {'example':>12} {'weight':>10} {'score':>12} {'loss':>12}"
    scores, losses = result["scores"], result["losses"]
    for row, (example, weight) in enumerate(
        zip(result["ids"], result["weights"], strict=True)
    ):
        score = None if scores is None else scores[row]
        loss = None if losses is None else losses[row]
        yield (
            f"{row:5} {example:12} {weight:10.5g} {_number(score):>12} "
            f"{_number(loss):>12}"
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


# --- an example ----------------------------------------------------------------------


def _example(ledger: Ledger, example: int) -> dict[str, Any]:
    from curator.ledger import appearances

    size = _num_examples(ledger.meta())
    if example < 0 or (size is not None and example >= size):
        has = "" if size is None else f"; the pool has examples 0 to {size - 1}"
        msg = f"there is no example {example}{has}"
        raise SessionError(msg)
    return {
        "example": example,
        "first_step": ledger.first_step(),
        "num_defined": ledger.num_defined(),
        "appearances": [
            dataclasses.asdict(appearance)
            for appearance in appearances(ledger, example)
        ],
    }


def _example_lines(result: Mapping[str, Any]) -> Iterator[str]:
    found = result["appearances"]
    steps = result["num_defined"] - result["first_step"]
    yield f"example {result['example']}: in {len(found):,} of {steps:,} batches"
    if found:
        yield (
            f"{'step':>8} {'epoch':>6} {'row':>5} {'weight':>10} {'score':>12} "
            f"{'rank':>5} {'snapshot':>8} {'loss':>12}"
        )
    for each in found:
        rank, snapshot = each["rank"], each["snapshot_step"]
        marks = [word for word in ("late", "skipped") if each[word]]
        line = (
            f"{each['step']:8} {each['epoch']:6} {each['position']:5} "
            f"{each['weight']:10.5g} {_number(each['score']):>12} "
            f"{'-' if rank is None else rank:>5} "
            f"{'-' if snapshot is None else snapshot:>8} {_number(each['loss']):>12}"
        )
        yield "  ".join([line, *marks])


# --- what was dropped ----------------------------------------------------------------


def _dropped(
    ledger: Ledger, record: StepRecord, folder: Path, config: Config | None
) -> dict[str, Any]:
    # Imported here: it loads Arrow and all that scores.
    from curator.engine import dropped

    spec = _spec(ledger)
    with progress_shown(), _pool(ledger, spec, config) as pool:
        left = dropped(spec, record, pool, ledger, folder / "plans")
    return {
        "step": record.step,
        "num_candidates": len(left.ids) + len(record.ids),
        "ids": left.ids.tolist(),
        "weights": None if left.weights is None else left.weights.tolist(),
    }


@contextlib.contextmanager
def _pool(ledger: Ledger, spec: SessionSpec, config: Config | None) -> Generator[Pool]:
    """Opens the pool, or ids alone where the sampler reads nothing else."""
    from curator.offline import open_configured_pool
    from curator.pools import VirtualPool

    known = ledger.meta()
    count = _num_examples(known)
    if count is not None and not spec.sampler.columns:
        yield VirtualPool(count)
        return
    if config is None:
        why = (
            "the ledger is of a version that did not record the size of the pool"
            if count is None
            else f"the sampler reads {', '.join(sorted(spec.sampler.columns))}"
        )
        msg = f"{why}: give the server's CONFIG.toml, which says where the pool is"
        raise ConfigError(msg)
    with open_configured_pool(config, spec.pool) as pool:
        if pool.fingerprint != known["pool"]:
            msg = f"pool {spec.pool!r} has changed since the session was opened"
            raise PoolChangedError(msg)
        yield pool


def _dropped_lines(result: Mapping[str, Any]) -> Iterator[str]:
    ids, weights = result["ids"], result["weights"]
    yield (
        f"step {result['step']}: {len(ids):,} of {result['num_candidates']:,} "
        "candidates were not selected"
    )
    for row, example in enumerate(ids):
        yield f"{example:12}" + ("" if weights is None else f" {weights[row]:10.5g}")


# --- export --------------------------------------------------------------------------


def _export(ledger: Ledger, path: Path) -> dict[str, Any]:
    from pyarrow import parquet

    from curator.files import replacing
    from curator.ledger import step_tables

    num_rows = 0
    tables = step_tables(ledger)
    schema = next(tables).schema
    with replacing(path) as file, parquet.ParquetWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table)
            num_rows += table.num_rows
    return {"path": str(path), "num_rows": num_rows}


COMMAND = Command(
    name="inspect",
    help="show what a session's ledger knows of steps and examples",
    description="Show what the ledger of a session knows; a server may run.",
    example="curator inspect server.toml run --example 17",
    add_arguments=_add_arguments,
    run=inspect,
)
