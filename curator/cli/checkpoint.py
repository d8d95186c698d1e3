"""``curator checkpoint`` and ``curator restore``: copies of a server's sessions."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from curator.cli.state import find_state

if TYPE_CHECKING:
    from curator.engine import Manifest

__all__ = [
    "add_checkpoint_arguments",
    "add_restore_arguments",
    "checkpoint",
    "restore",
]

_STATE = "the server's configuration, or its state directory"
_PLACE = "a folder, or a URI such as s3://bucket/folder"


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``curator checkpoint``."""
    parser.add_argument("state", metavar="CONFIG.toml|STATE_DIR", help=_STATE)
    parser.add_argument("target", metavar="TARGET", help=_PLACE)
    _add_json(parser)


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``curator restore``."""
    parser.add_argument("source", metavar="SOURCE", help=_PLACE)
    parser.add_argument(
        "state", metavar="CONFIG.toml|STATE_DIR", help=f"{_STATE}; empty, or not there"
    )
    _add_json(parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print the manifest as one JSON object"
    )


def checkpoint(arguments: argparse.Namespace) -> int:
    """Copies all sessions, whether or not a server is running.

    Returns:
        0.

    Raises:
        CuratorError: As for :func:`curator.engine.checkpoint`.
    """
    # Imported here, so that `curator --help` needs no Arrow.
    from curator import engine

    state, _ = find_state(arguments.state)
    manifest = engine.checkpoint(state, arguments.target)
    _print(manifest, f"copied to {arguments.target}", as_json=arguments.json)
    return 0


def restore(arguments: argparse.Namespace) -> int:
    """Makes a state directory of a checkpoint.

    Returns:
        0.

    Raises:
        CuratorError: As for :func:`curator.engine.restore`.
    """
    from curator import engine

    state, _ = find_state(arguments.state)
    manifest = engine.restore(arguments.source, state)
    _print(manifest, f"restored to {state}", as_json=arguments.json)
    return 0


def _print(manifest: Manifest, what: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(manifest)))
        return
    print(f"{what}: {len(manifest.files)} files, {manifest.num_bytes / 1e6:,.1f} MB")
    for name, session in manifest.sessions.items():
        print(
            f"  {name}: {session.num_defined:,} steps defined, "
            f"step {session.next_step:,} is next to be trained on"
        )
