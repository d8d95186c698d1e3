"""``curator report``: scores, a subset or a session as a page to look at."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.cli.command import Command, add_json, file_path, positive, print_json
from curator.cli.pool import add_pool, pool_of
from curator.cli.progress import progress_shown
from curator.cli.state import find_state
from curator.config import load_config
from curator.errors import ConfigError, PoolChangedError

if TYPE_CHECKING:
    from curator.pools import Pool
    from curator.report import Options, Report, Written

__all__ = ["COMMAND", "report"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        type=file_path,
        metavar="SCORES|SUBSET|CONFIG.toml|STATE_DIR",
        help="what 'curator score' or 'curator select' wrote; or, with --session, a "
        "server's configuration or state directory",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=file_path,
        metavar="FOLDER",
        help="where report.html goes",
    )
    parser.add_argument("--session", metavar="NAME", help="report on this session")
    parser.add_argument(
        "--scores",
        type=file_path,
        metavar="SCORES",
        help="what a subset was selected from",
    )
    add_pool(parser, "the examples, to show them")
    parser.add_argument(
        "--domain",
        "--label",
        metavar="COLUMN",
        help="of the pool, by which examples are grouped; guessed by default",
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="of the pool, the only one shown as text"
    )
    parser.add_argument(
        "--image", metavar="COLUMN", help="of the pool, the only one shown as a picture"
    )
    parser.add_argument(
        "--examples",
        type=positive,
        default=8,
        metavar="N",
        help="how many of a kind are shown at most; 8",
    )
    parser.add_argument(
        "--cosine",
        type=_cosine,
        default=0.95,
        metavar="C",
        help="above which embeddings are near-duplicates; 0.95",
    )
    add_json(parser)


def report(arguments: argparse.Namespace) -> int:
    """Writes a report and sums it up.

    Returns:
        0.

    Raises:
        CuratorError: There is nothing to report on at that path, the pool is another
            one, a column cannot be shown, or the folder holds other files.
    """
    # Imported here, so that `curator --help` needs no Arrow.
    from curator.report import Choice, Options, check_folder, write_report

    # What it says of caches and fonts is nothing that a caller has asked for.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    folder: Path = arguments.out
    check_folder(folder)
    options = Options(
        num_examples=arguments.examples,
        choice=Choice(arguments.domain, arguments.text, arguments.image),
        threshold=arguments.cosine,
    )
    with progress_shown():
        made = _make(arguments, options)
    written = write_report(made, folder)
    if arguments.json:
        print_json({**made.summary, **_files(written)})
        return 0
    for line in made.lines:
        print(line)
    count = len(written.figures)
    plots = f" and {count} {'plot' if count == 1 else 'plots'} (PNG)" if count else ""
    print(f"{written.page} ({written.num_bytes / 1e6:,.1f} MB){plots} written")
    return 0


def _make(arguments: argparse.Namespace, options: Options) -> Report:
    from curator import report as reports

    path: Path = arguments.path
    if arguments.session is not None:
        _refuse(arguments, "--session", "scores")
        state, config = find_state(str(path))
        if arguments.config is not None:
            config = load_config(arguments.config)
        return reports.report_session(
            state, arguments.session, config, options, pool_name=arguments.pool
        )
    what = _kind(path)
    if what == "scores":
        from curator.offline import Scores

        _refuse(arguments, "a report on scores", "scores")
        scores = Scores.open(path)
        fingerprint = scores.pool_fingerprint
        with _pool(arguments, fingerprint, _last_id(scores)) as pool:
            return reports.report_scores(scores, pool, options)
    from curator.offline import Scores, read_subset

    subset = read_subset(path)
    whole = None if arguments.scores is None else Scores.open(arguments.scores)
    last = int(subset.ids[-1]) if len(subset.ids) else 0
    with _pool(arguments, subset.metadata["pool_fingerprint"], last) as pool:
        return reports.report_subset(subset, whole, pool, options, name=path.name)


def _kind(path: Path) -> str:
    """Returns what lies at a path: ``scores`` or ``subset``."""
    import pyarrow as pa
    from pyarrow import parquet

    from curator.offline import Subset

    if not path.exists():
        msg = (
            f"nothing to report on: there is no {str(path)!r}. Expected a folder of "
            "'curator score', a file of 'curator select', or with --session NAME a "
            "server's configuration or state directory"
        )
        raise ConfigError(msg)
    is_state = path.suffix == ".toml" or any(path.glob("sessions/*/ledger.sqlite"))
    if is_state:
        msg = f"{str(path)!r} is a server's: add --session NAME{_sessions(path)}"
        raise ConfigError(msg)
    if path.is_dir():
        return "scores"
    try:
        found = parquet.read_schema(path).metadata
    except (OSError, pa.ArrowException) as error:
        msg = (
            f"{str(path)!r} is nothing to report on ({error}): expected a folder of "
            "'curator score', a file of 'curator select', or with --session NAME a "
            "server's configuration or state directory"
        )
        raise ConfigError(msg) from error
    keys = set[bytes](found or ())
    return "subset" if Subset.KEY in keys else "scores"


def _sessions(path: Path) -> str:
    state, _ = find_state(str(path))
    names = sorted(p.parent.name for p in state.glob("sessions/*/ledger.sqlite"))
    more = f", and {len(names) - 5} more" if len(names) > 5 else ""
    return f" ({', '.join(names[:5])}{more})" if names else ""


def _last_id(scores: Any) -> int:
    """Returns the highest id; what is of a manifest has them all, from 0."""
    if scores.manifest is not None:
        return scores.num_examples - 1
    ids = scores.ids()
    return int(ids[-1]) if len(ids) else -1


@contextlib.contextmanager
def _pool(
    arguments: argparse.Namespace, fingerprint: str | None, last_id: int
) -> Generator[Pool | None]:
    """Opens the pool that the user named, and checks that it is the one.

    Raises:
        ConfigError: There is no such pool, or only half of it was named.
        PoolError: It cannot be read, or is another one.
    """
    config, name = pool_of(arguments)
    if config is None or name is None:
        for option in ("domain", "text", "image"):
            if getattr(arguments, option) is not None:
                msg = f"--{option} is a column of a pool: add --pool"
                raise ConfigError(msg)
        yield None
        return
    from curator.offline import open_configured_pool

    with open_configured_pool(config, name) as pool:
        if fingerprint is not None and pool.fingerprint != fingerprint:
            msg = (
                f"pool {arguments.pool!r} is not the one that was scored: its "
                f"fingerprint is {pool.fingerprint[:16]}, and that of the scores "
                f"{fingerprint[:16]}"
            )
            raise PoolChangedError(msg)
        if last_id >= pool.num_examples:
            msg = (
                f"pool {arguments.pool!r} has {pool.num_examples:,} examples, and the "
                f"scores have example {last_id:,}: it is another one"
            )
            raise PoolChangedError(msg)
        yield pool


def _refuse(arguments: argparse.Namespace, what: str, *options: str) -> None:
    for option in options:
        if getattr(arguments, option) is not None:
            msg = f"--{option} does not go with {what}"
            raise ConfigError(msg)


def _cosine(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        msg = f"expected a number between 0 and 1; got {text!r}"
        raise argparse.ArgumentTypeError(msg) from None
    if not 0 < number < 1:
        msg = f"between 0 and 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return number


def _files(written: Written) -> dict[str, Any]:
    return {
        "page": str(written.page),
        "figures": [str(path) for path in written.figures],
        "num_bytes": written.num_bytes,
    }


COMMAND = Command(
    name="report",
    help="show scores, a subset or a session as a page with plots and examples",
    description="Write one HTML page, and its plots as PNG, on scores, on a subset or "
    "on a session: distributions, examples, near-duplicates, what was dropped.",
    example="curator report scores --out report --config server.toml --pool pairs",
    add_arguments=_add_arguments,
    run=report,
)
