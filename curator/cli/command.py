"""What a command of ``curator`` is, and the arguments that several have."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

__all__ = ["Command", "add_json", "positive"]


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: how it is called, what its help says, and what it does.

    Attributes:
        name: As it is typed.
        help: A line of ``curator --help``, without a capital.
        description: What ``curator NAME --help`` says first.
        example: A whole call, which the help ends with.
        add_arguments: Adds its arguments to a parser.
        run: Does it, and returns the exit status.
    """

    name: str
    help: str
    description: str
    example: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def add_json(parser: argparse.ArgumentParser, what: str = "the result") -> None:
    """Adds ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help=f"print {what} as one JSON object"
    )


def positive(text: str) -> int:
    """Returns an integer of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        msg = f"at least 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return number
