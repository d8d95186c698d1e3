"""Configurations of one pool, and perhaps one model, for commands that need no more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from curator.config._load import parse_config, read_toml
from curator.config._specs import Config
from curator.errors import ConfigError

__all__ = ["one_off_config"]


def one_off_config(
    pool: str,
    format: str,
    model: Path | None = None,
    *,
    executor: str | None = None,
) -> tuple[Config, str, str]:
    """Returns a configuration of a pool and a model, and their names in it.

    Args:
        pool: Path or URI of the pool.
        format: Of the pool.
        model: A TOML file with the keys of a ``[models.NAME]`` table, and perhaps a
            ``[ray]`` table. Its folder is on the import path of the factory, and
            relative paths in it are relative to it.
        executor: Where the model runs, ``local`` by default.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or says something wrong.
    """
    names = Path(pool).name or pool, "model" if model is None else model.stem
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    where = pool if "://" in pool else str(Path(pool).absolute())
    table: dict[str, Any] = {
        "server": {"state_dir": str(Path(cache).absolute() / "batch-curator")},
        "pools": {names[0]: {"format": format, "path": where}},
    }
    if model is None:
        return parse_config(table), *names
    body = _read(model)
    if "ray" in body:
        table["ray"] = body.pop("ray")
    table["models"] = {names[1]: body}
    table["server"]["python_path"] = ["."]
    try:
        config = parse_config(table, base=model.parent, executor=executor or "local")
    except ConfigError as error:
        msg = f"{model}: {str(error).replace(f'models.{names[1]}.', '')}"
        raise ConfigError(msg) from error
    return config, *names


def _read(model: Path) -> dict[str, Any]:
    body = read_toml(model, "model")
    if "models" in body or "pools" in body:
        msg = (
            f"{model}: a configuration, where a model is expected: its keys, without "
            "[models.NAME]. Of a configuration, name the pool (--pool NAME)"
        )
        raise ConfigError(msg)
    return body
