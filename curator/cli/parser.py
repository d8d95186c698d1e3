"""The arguments of all commands, and what a wrong call is told."""

from __future__ import annotations

import argparse
import difflib
import functools
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from curator import __version__
from curator.cli.command import Command

__all__ = ["make_parser"]


class _Parser(argparse.ArgumentParser):
    """A parser that is strict, and short with what is wrong.

    Options are not abbreviated, so that a script means the same when there are more of
    them. A wrong call of a command gets the usage of that command, not of the whole.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=functools.partial(
                argparse.RawDescriptionHelpFormatter, max_help_position=28
            ),
            **given,
        )

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - of overloads
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """Parses everything: what is not known is an error here, not further up."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(
                f"unrecognized arguments: {' '.join(unknown)}{self._hint(unknown)}"
            )
        return parsed, []

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}\nsee '{self.prog} --help'\n")

    def _hint(self, unknown: Sequence[str]) -> str:
        known = list(self._option_string_actions)
        for word in unknown:
            close = difflib.get_close_matches(word.partition("=")[0], known, n=1)
            if close:
                return f" (did you mean {close[0]!r}?)"
        return ""


def make_parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    """Returns the parser of ``curator``; what it parses has ``run``, the command."""
    parser = _Parser(
        prog="curator",
        description="Online data curation: curated batches for any trainer.",
        epilog="'curator COMMAND --help' has an example of each; docs/cli.md all of "
        "them.",
    )
    parser.add_argument("--version", action="version", version=f"curator {__version__}")
    added = parser.add_subparsers(
        metavar="COMMAND", required=True, parser_class=_Parser
    )
    width = max(40, min(88, shutil.get_terminal_size().columns - 2))
    for command in commands:
        each = added.add_parser(
            command.name,
            help=command.help,
            description=textwrap.fill(command.description, width),
            # Not wrapped, so that it can be copied.
            epilog=f"example:\n  {command.example}",
        )
        command.add_arguments(each)
        each.set_defaults(run=command.run)
    return parser
