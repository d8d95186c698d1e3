"""The tree of commands; each one is in its file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from curator import __version__
from curator.cli import checkpoint, inspect, score
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
    return serve(parsed.config, parsed.listen, insecure=parsed.insecure)


def _sessions(parsed: argparse.Namespace) -> int:
    return sessions(parsed.target, ca=parsed.ca, cert=parsed.cert, key=parsed.key)


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
    command.add_argument(
        "--insecure",
        action="store_true",
        help="let other machines reach it without TLS or tokens; see docs/security.md",
    )
    command.set_defaults(run=_serve)

    command = commands.add_parser(
        "sessions",
        help="show the sessions of a server",
        description="Show where each session of a server is, and what it has cost.",
        epilog="example: curator sessions 127.0.0.1:50051; "
        "a token is taken from CURATOR_TOKEN",
    )
    command.add_argument("target", metavar="HOST:PORT", help="as serve prints it")
    command.add_argument("--ca", metavar="CA.pem", help="of a server with TLS")
    command.add_argument("--cert", metavar="CERT.pem", help="where it asks clients too")
    command.add_argument("--key", metavar="KEY.pem", help="the certificate's key")
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

    command = commands.add_parser(
        "checkpoint",
        help="copy all sessions, while the server runs or not",
        description="Copy all sessions of a server, each as of one moment, while it "
        "runs or not.",
        epilog="example: curator checkpoint server.toml s3://backups/monday",
    )
    checkpoint.add_checkpoint_arguments(command)
    command.set_defaults(run=checkpoint.checkpoint)

    command = commands.add_parser(
        "restore",
        help="make a state directory of such a copy",
        description="Make a new state directory of a copy that checkpoint made.",
        epilog="example: curator restore s3://backups/monday server.toml",
    )
    checkpoint.add_restore_arguments(command)
    command.set_defaults(run=checkpoint.restore)

    command = commands.add_parser(
        "inspect",
        help="show what a session's ledger knows of steps and examples",
        description="Show what the ledger of a session knows; a server may run.",
        epilog="example: curator inspect server.toml run --example 17",
    )
    inspect.add_arguments(command)
    command.set_defaults(run=inspect.inspect)
    return parser


if __name__ == "__main__":
    sys.exit(main())
