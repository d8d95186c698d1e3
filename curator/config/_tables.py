"""Mappings, as TOML gives them, to dataclasses whose fields they name."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar, cast

from curator.config._specs import did_you_mean
from curator.errors import ConfigError

__all__ = ["Table", "build", "check_keys", "entries_of", "table_of"]

T = TypeVar("T")
Table: TypeAlias = Mapping[str, Any]


def entries_of(kind: str, value: object) -> list[tuple[str, str, Table]]:
    """Returns (name, dotted key, table) of every table in the table ``kind``."""
    tables = table_of(kind, value)
    return [(k, f"{kind}.{k}", table_of(f"{kind}.{k}", v)) for k, v in tables.items()]


def table_of(where: str, value: object) -> Table:
    if not isinstance(value, Mapping):
        # Where a token may have been written in the wrong place, it is not shown.
        secret = where.startswith("server.tokens")
        found = f"a {type(value).__name__}" if secret else repr(value)
        msg = f"{where}: expected a table; got {found}"
        raise ConfigError(msg)
    return cast("Table", value)


def check_keys(where: str, table: Table, known: set[str]) -> None:
    for key in table:
        if key not in known:
            dotted = f"{where}.{key}" if where else key
            msg = f"unknown key {dotted!r}{did_you_mean(key, known)}"
            raise ConfigError(msg)


def build(cls: type[T], where: str, table: Table, **ready: object) -> T:
    """Returns ``cls(**table, **ready)`` after checking keys, types and ranges."""
    # Imported here: pydantic takes longer to import than the rest of the package.
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cast("Any", cls))}
    check_keys(where, table, set(fields) - set(ready))
    values: dict[str, object] = dict(ready)
    for key, value in table.items():
        try:
            adapter = TypeAdapter[object](hints[key], config=ConfigDict(strict=True))
            values[key] = adapter.validate_python(value)
        except ValidationError as error:
            # A union reports one error per member; the first says enough.
            problem = error.errors()[0]["msg"].replace("Input should be", "expected")
            msg = f"{where}.{key}: {problem}; got {value!r}"
            raise ConfigError(msg) from None
    for key, field in fields.items():
        optional = (
            field.default is not dataclasses.MISSING
            or field.default_factory is not dataclasses.MISSING
        )
        if key not in values and not optional:
            msg = f"{where}.{key}: missing, and it has no default"
            raise ConfigError(msg)
    try:
        return cls(**values)
    except ValueError as error:
        msg = f"{where}.{error}"
        raise ConfigError(msg) from None
