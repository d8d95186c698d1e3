"""Policies and samplers that are not curator's own, known by their names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from curator.errors import ConfigError

__all__ = ["Foreign", "register_component"]

Class = TypeVar("Class", bound=type[Any])


@dataclasses.dataclass(frozen=True, slots=True)
class Foreign:
    """What a client knows of a policy or sampler whose class is not imported here.

    It may be the server's own, or of a newer version of curator. The server uses it; no
    session in this process can.

    Attributes:
        name: Under which the server knows it.
        options: Its fields.
    """

    name: str
    options: Mapping[str, object]

    def error(self) -> ConfigError:
        """Returns what is raised where it would have to be used."""
        msg = (
            f"{self.name!r} is another process's, and not known in this one: import "
            "its module, and make it by its class"
        )
        return ConfigError(msg)


def register_component(
    kind: str, known: dict[str, type[Any]], cls: Class, members: Sequence[str]
) -> Class:
    """Adds a class to the known ones, under its attribute ``name``; returns it.

    Args:
        kind: What it is to be, for messages.
        known: Classes by name.
        cls: The class. One that is defined anew, as a notebook does, takes the place
            of what it was before.
        members: What it has to have.

    Raises:
        ConfigError: It is no frozen dataclass, lacks one of these, or has no name, or
            that of another class.
    """
    where = f"{kind} {cls.__module__}.{cls.__qualname__}"
    # Not is_dataclass(), which would make it another type to type checkers.
    if not getattr(getattr(cls, "__dataclass_params__", None), "frozen", False):
        msg = (
            f"{where}: must be a frozen dataclass, for its fields are its "
            f"configuration: put @register_{kind} above @dataclass(frozen=True)"
        )
        raise ConfigError(msg)
    name = getattr(cls, "name", None)
    is_field = any(field.name == "name" for field in dataclasses.fields(cls))
    if is_field or not isinstance(name, str) or not re.fullmatch(r"[a-z]\w*", name):
        msg = (
            f"{where}: its class attribute 'name' must be a word in small letters, and "
            f"no field (name: ClassVar[str] = 'mine'); got {name!r}"
        )
        raise ConfigError(msg)
    missing = [member for member in members if not hasattr(cls, member)]
    if missing:
        msg = f"{where}: lacks {', '.join(missing)}; a {kind} has {', '.join(members)}"
        raise ConfigError(msg)
    other = known.get(name)
    if other is not None and _path(other) != _path(cls):
        msg = f"{where}: {name!r} is the name of {'.'.join(_path(other))} already"
        raise ConfigError(msg)
    known[name] = cls
    return cls


def _path(cls: type[Any]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
