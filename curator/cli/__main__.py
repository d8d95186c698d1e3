"""The tree of commands; each one is in its file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from curator import __version__
from curator.cli import checkpoint, inspect, score, serve, sessions
from curator.errors import CuratorError

__all__ = ["main"]

COMMANDS = (
    serve.COMMAND,
    sessions.COMMAND,
    score.COMMAND,
    checkpoint.CHECKPOINT,
    checkpoint.RESTORE,
    inspect.COMMAND,
)


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="curator",
        description="Online data curation: curated batches for any trainer.",
    )
    parser.add_argument("--version", action="version", version=f"curator {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        each = commands.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=f"example: {command.example}",
        )
        command.add_arguments(each)
        each.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
