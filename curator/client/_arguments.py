"""What a trainer passes, checked where a wrong type would fail far from here."""

from __future__ import annotations

import re
from numbers import Integral
from typing import Any

from curator.config import SessionSpec, check_unix_path
from curator.errors import ConfigError

__all__ = ["check_columns", "check_session", "check_target", "check_whole"]

# Of a number of batches; the protocol holds one bit more.
_LARGEST = 1 << 31
# Ways of gRPC to name a server, beside HOST:PORT; unix is followed by a path.
_SCHEMES = ("unix:", "unix-abstract:", "vsock:", "dns:", "ipv4:", "ipv6:", "xds:")
# An IPv6 address stands in brackets, as its own colons are none of the port.
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s/:\[\]]+):(\d+)")


def check_whole(name: str, value: Any, least: int) -> None:
    """Checks a whole number.

    Raises:
        ValueError: It is none, less than ``least``, or above 2**31.
    """
    if not isinstance(value, Integral) or int(value) < least:
        msg = f"{name}: a whole number of at least {least}; got {value!r}"
        raise ValueError(msg)
    if int(value) > _LARGEST:
        msg = f"{name}: at most {_LARGEST}; got {value!r}"
        raise ValueError(msg)


def check_columns(columns: Any) -> None:
    """Checks names of columns: letters of a word would be taken for names.

    Raises:
        ConfigError: They are a word.
    """
    if isinstance(columns, str):
        msg = f"columns: a list of names, such as [{columns!r}]; got {columns!r}"
        raise ConfigError(msg)


def check_session(name: Any, spec: Any) -> None:
    """Checks the types of a session's name and specification.

    Raises:
        ConfigError: They are others.
    """
    if not isinstance(name, str) or not isinstance(spec, SessionSpec | None):
        msg = (
            "a session is opened by its name, and a SessionSpec or a mapping: "
            f"open({name!r}, {spec!r})"
        )
        raise ConfigError(msg)


def check_target(target: Any) -> None:
    """Checks the address of a server.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(target, str):
        found = _HOST_PORT.fullmatch(target)
        if found is not None and 0 < int(found[2]) < 1 << 16:
            return
        if target.startswith(_SCHEMES) and not target.endswith(":"):
            if target.startswith("unix:"):
                try:
                    check_unix_path(target)
                except ValueError as error:
                    msg = f"target: {error}"
                    raise ConfigError(msg) from None
            return
    msg = (
        "target: HOST:PORT or unix:PATH, as `curator serve` prints it (an IPv6 address "
        f"in brackets); got {target!r}"
    )
    raise ConfigError(msg)
