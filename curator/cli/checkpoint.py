"""``curator checkpoint`` and ``curator restore``: copies of a server's sessions."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from curator.cli.command import Command, add_json, print_json
from curator.cli.state import find_state

if TYPE_CHECKING:
    from curator.engine import Manifest

__all__ = ["CHECKPOINT", "RESTORE", "checkpoint", "restore"]

_STATE = "the server's configuration, or its state directory"
_PLACE = "a folder, or a URI such as s3://bucket/folder"


def _add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("state", metavar="CONFIG.toml|STATE_DIR", help=_STATE)
    parser.add_argument("target", metavar="TARGET", help=_PLACE)
    add_json(parser, "the manifest")


def _add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=_PLACE)
    parser.add_argument(
        "state", metavar="CONFIG.toml|STATE_DIR", help=f"{_STATE}; empty, or not there"
    )
    add_json(parser, "the manifest")


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
        print_json(dataclasses.asdict(manifest))
        return
    print(f"{what}: {len(manifest.files)} files, {manifest.num_bytes / 1e6:,.1f} MB")
    for name, session in manifest.sessions.items():
        print(
            f"  {name}: {session.num_defined:,} steps defined, "
            f"step {session.next_step:,} is next to be trained on"
        )


CHECKPOINT = Command(
    name="checkpoint",
    help="copy all sessions, while the server runs or not",
    description="Copy all sessions of a server, each as of one moment, while it "
    "runs or not.",
    example="curator checkpoint server.toml s3://backups/monday",
    add_arguments=_add_checkpoint_arguments,
    run=checkpoint,
)

RESTORE = Command(
    name="restore",
    help="make a state directory of such a copy",
    description="Make a new state directory of a copy that checkpoint made.",
    example="curator restore s3://backups/monday server.toml",
    add_arguments=_add_restore_arguments,
    run=restore,
)
