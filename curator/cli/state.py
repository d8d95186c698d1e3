"""Where a server's state is, by its configuration or by its folder."""

from __future__ import annotations

from pathlib import Path

from curator.config import Config, load_config

__all__ = ["find_state"]


def find_state(text: str) -> tuple[Path, Config | None]:
    """Returns a state directory, and the configuration if that was given.

    Args:
        text: A configuration's file, or a state directory, which need not exist.

    Raises:
        ConfigError: The configuration cannot be read, or is wrong.
    """
    path = Path(text)
    if path.suffix == ".toml" or path.is_file():
        config = load_config(path)
        return Path(config.server.state_dir), config
    return path, None
