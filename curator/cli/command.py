"""What a command of ``curator`` is, and the arguments that several have."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from curator.errors import ConfigError

__all__ = [
    "Command",
    "add_json",
    "add_options",
    "file_path",
    "names",
    "option",
    "options_table",
    "positive",
    "print_json",
]


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


def add_options(parser: argparse.ArgumentParser, what: str, example: str) -> None:
    """Adds ``-o KEY=VALUE``, for the fields of a policy or a sampler."""
    parser.add_argument(
        *("-o", "--option"),
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=option,
        help=f"a field of {what}, as in a session: {example}",
    )


def file_path(text: str) -> Path:
    """Returns a path on this machine, for argparse.

    Of nothing it would be the working folder, of ``s3://bucket`` a folder ``s3:``.
    """
    if not text or "://" in text:
        msg = f"expected the name of a file or folder on this machine; got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"expected a name in UTF-8, or a link with such a name; got {text!r}"
        raise argparse.ArgumentTypeError(msg) from None
    return Path(text)


def positive(text: str) -> int:
    """Returns an integer of at least 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        msg = f"expected a whole number of at least 1; got {text!r}"
        raise argparse.ArgumentTypeError(msg) from None
    if number < 1:
        msg = f"at least 1; got {text}"
        raise argparse.ArgumentTypeError(msg)
    return number


def option(text: str) -> tuple[str, object]:
    """Returns a key and a value of TOML, for argparse; a bare word is a string."""
    key, equals, value = text.partition("=")
    if not (key.strip() and equals):
        msg = f"expected KEY=VALUE; got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    try:
        table = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    return key.strip(), table["value"] if len(table) == 1 else value


def options_table(given: Sequence[tuple[str, object]]) -> dict[str, object]:
    """Returns the fields that options give.

    Raises:
        ConfigError: One is given twice.
    """
    table = dict(given)
    if len(table) < len(given):
        keys = [key for key, _ in given]
        twice = next(key for key in keys if keys.count(key) > 1)
        msg = f"option {twice!r} is given more than once"
        raise ConfigError(msg)
    return table


def names(text: str) -> tuple[str, ...]:
    """Returns the names of a list such as ``loss,entropy``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def print_json(value: object) -> None:
    """Prints one JSON object; numbers that are not finite, which it lacks, as text."""
    print(json.dumps(_plain(value), allow_nan=False), flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        table = cast("dict[str, Any]", value)
        return {key: _plain(each) for key, each in table.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("list[Any]", value)]
    return value
