"""From an import path to what the function there returns."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from curator.errors import ConfigError

__all__ = ["call_factory"]


def call_factory(path: str, args: Mapping[str, object]) -> object:
    """Returns what the function at an import path returns for keyword arguments.

    Args:
        path: ``"package.module:function"``.
        args: The keyword arguments.

    Raises:
        ConfigError: The path is malformed, the module cannot be imported, has no such
            function, or the function raised; the message names the path.
    """
    factory = _import_factory(path)
    try:
        return factory(**args)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in args.items())
        msg = (
            f"factory {path!r} raised {type(error).__name__} when called with "
            f"({given}): {error}"
        )
        raise ConfigError(msg) from error


def _import_factory(path: str) -> Callable[..., object]:
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        msg = f"factory: expected 'package.module:function'; got {path!r}"
        raise ConfigError(msg)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        # A missing dependency of the user's module is another mistake than a missing
        # module: only the second one is cured by the import path.
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, module_name):
            msg = (
                f"factory {path!r}: there is no module {error.name!r}; install it, or "
                "put its folder on the import path (server.python_path)"
            )
        else:
            msg = (
                f"factory {path!r}: importing {module_name!r} raised "
                f"{type(error).__name__}: {error}"
            )
        raise ConfigError(msg) from error
    factory = getattr(module, name, None)
    if factory is None:
        msg = f"factory {path!r}: module {module_name!r} has no {name!r}"
        raise ConfigError(msg)
    if not callable(factory):
        msg = (
            f"factory {path!r} is a {type(factory).__name__}; expected a function that "
            "returns a torch.nn.Module"
        )
        raise ConfigError(msg)
    return factory


def _is_part(missing: str | None, module_name: str) -> bool:
    """Returns whether ``missing`` is ``module_name`` or one of its packages."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")
