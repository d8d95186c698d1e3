"""The pool that scores are of, as several commands are told it."""

from __future__ import annotations

import argparse

from curator.cli.command import file_path
from curator.config import Config, load_config, one_off_config
from curator.errors import ConfigError

__all__ = ["add_pool", "pool_of"]


def add_pool(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``--pool`` and ``--config``."""
    parser.add_argument(
        "--pool",
        metavar="PATH|NAME",
        help=f"{what}: its files, or its name in the configuration",
    )
    parser.add_argument(
        "--config",
        type=file_path,
        metavar="CONFIG.toml",
        help="has the pool that --pool names",
    )


def pool_of(arguments: argparse.Namespace) -> tuple[Config | None, str | None]:
    """Returns a configuration and which pool of it is meant; None for no pool.

    Raises:
        ConfigError: The configuration says something wrong, or there is a configuration
            and no name; the format of files cannot be told.
    """
    if arguments.pool is None:
        if arguments.config is not None:
            msg = "pool: which one of the configuration? Name it (--pool NAME)"
            raise ConfigError(msg)
        return None, None
    if arguments.config is not None:
        return load_config(arguments.config), arguments.pool
    from curator.pools import guess_format

    config, pool, _ = one_off_config(arguments.pool, guess_format(arguments.pool))
    return config, pool
