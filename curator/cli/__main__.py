"""The tree of commands; each one is in its file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from curator import __version__
from curator.cli import score
from curator.cli.serve import serve
from curator.cli.sessions import sessions
from curator.errors import CuratorError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 on success, 1 after an error (one line on stderr), 2 for a wrong call; some
        commands have others.
    """
    parsed = _parser().parse_args(arguments)
    try:
        return parsed.run(parsed)
    except CuratorError as error:
        print(f"curator: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _serve(parsed: argparse.Namespace) -> int:
    return serve(parsed.config, parsed.listen)


def _sessions(parsed: argparse.Namespace) -> int:
    return sessions(parsed.target)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="curator",
        description="Online data curation: curated batches for any trainer.",
    )
    parser.add_argument("--version", action="version", version=f"curator {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser(
        "serve",
        help="serve the sessions of a configuration",
        description="Serve the sessions of a configuration until SIGTERM or Ctrl-C.",
        epilog="example: curator serve server.toml --listen 127.0.0.1:0",
    )
    command.add_argument("config", metavar="CONFIG.toml", help="see docs/sessions.md")
    command.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="instead of server.listen; port 0 picks a free one",
    )
    command.set_defaults(run=_serve)

    command = commands.add_parser(
        "sessions",
        help="show the sessions of a server",
        description="Show where each session of a server is, and what it has cost.",
        epilog="example: curator sessions 127.0.0.1:50051",
    )
    command.add_argument("target", metavar="HOST:PORT", help="as serve prints it")
    command.set_defaults(run=_sessions)

    command = commands.add_parser(
        "score",
        help="score a pool once, to Parquet files",
        description="Score every example of a pool with a model, to Parquet files. "
        "Interrupted and run again, it continues.",
        epilog="example: curator score server.toml --pool pairs --model reference "
        "--out scores --dry-run",
    )
    score.add_arguments(command)
    command.set_defaults(run=score.score)
    return parser


if __name__ == "__main__":
    sys.exit(main())
