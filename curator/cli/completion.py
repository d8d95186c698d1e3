"""``curator completion``: completion of commands, options and files in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, cast

from curator.cli.command import Command

__all__ = ["COMMAND", "completion"]

_SHELLS = ("bash", "zsh", "fish")
# What a metavar says that stands for a path, in whole or in part.
_PATHS = (
    *("SCORES", "SUBSET", "LOSSES", "FILE", "FOLDER", "STATE_DIR", "SOURCE", "TARGET"),
    ".",
)


def completion(arguments: argparse.Namespace) -> int:
    """Prints the script that teaches a shell.

    Returns:
        0.
    """
    import shtab

    from curator.cli.__main__ import COMMANDS
    from curator.cli.parser import make_parser

    parser = make_parser(COMMANDS)
    for action in _actions(parser):
        if action.metavar and any(word in str(action.metavar) for word in _PATHS):
            cast("Any", action).complete = shtab.FILE
    print(shtab.complete(parser, shell=arguments.shell), flush=True)
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields every argument of every command."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage] - there is no other way to list them
        choices = action.choices
        if isinstance(choices, dict):
            for each in cast("dict[str, argparse.ArgumentParser]", choices).values():
                yield from _actions(each)
        else:
            yield action


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="which shell it is for")


COMMAND = Command(
    name="completion",
    help="print what makes a shell complete commands and options",
    description="Print a script that makes a shell complete commands, options and "
    "files. bash reads it in ~/.bashrc, zsh from the file _curator in a folder of its "
    "$fpath, fish from ~/.config/fish/completions/curator.fish.",
    example="source <(curator completion bash)",
    add_arguments=_add_arguments,
    run=completion,
)
