"""Code that is not curator's: where it is found, and what of it is imported."""

from __future__ import annotations

import importlib
import sys

from curator.config._server import ServerSpec
from curator.errors import ConfigError

__all__ = ["load_extensions"]


def load_extensions(server: ServerSpec) -> None:
    """Puts ``python_path`` on the import path, and imports the ``extensions``.

    What is imported already stays as it is.

    Raises:
        ConfigError: There is no such module, or importing it failed.
    """
    for folder in reversed(server.python_path):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    for name in server.extensions:
        try:
            importlib.import_module(name)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
            if isinstance(error, ConfigError):
                found = str(error)
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                found = "there is no such module; put its folder on server.python_path"
            msg = f"server.extensions: cannot import {name!r}: {found}"
            raise ConfigError(msg) from error
