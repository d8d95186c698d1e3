"""Reading specifications from TOML or from plain mappings."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from curator.config._specs import (
    Config,
    ModelSpec,
    PoolSpec,
    ServerSpec,
    SessionSpec,
    check_session_name,
    did_you_mean,
)
from curator.errors import ConfigError
from curator.policies import POLICIES, Policy

__all__ = [
    "check_references",
    "load_config",
    "parse_config",
    "parse_session",
    "session_to_table",
]

T = TypeVar("T")
Table = Mapping[str, Any]


def load_config(path: str | Path) -> Config:
    """Returns the configuration of a TOML file.

    Relative paths in it are relative to the file.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or says something wrong.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read the configuration {str(path)!r}: {error.strerror}"
        raise ConfigError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: not valid TOML: {error}"
        raise ConfigError(msg) from error
    try:
        return parse_config(table, base=path.parent)
    except ConfigError as error:
        msg = f"{path}: {error}"
        raise ConfigError(msg) from error


def parse_config(table: Table, *, base: Path | None = None) -> Config:
    """Returns the configuration of a mapping, as TOML gives it.

    Args:
        table: Tables ``server``, ``pools``, ``models`` and ``sessions``.
        base: What relative paths are relative to; the current folder by default.

    Raises:
        ConfigError: A key is unknown, missing, of the wrong type or out of range.
    """
    base = (base or Path.cwd()).absolute()
    _check_keys("", table, {"server", "pools", "models", "sessions"})
    server = _build(ServerSpec, "server", _table("server", table.get("server", {})))
    server = dataclasses.replace(
        server,
        state_dir=str(base / server.state_dir),
        python_path=[str(base / entry) for entry in server.python_path],
    )
    config = Config(
        server=server,
        pools={
            name: _resolve(_build(PoolSpec, where, body), "path", base)
            for name, where, body in _entries("pools", table)
        },
        models={
            name: _resolve(_build(ModelSpec, where, body), "weights", base)
            for name, where, body in _entries("models", table)
        },
        sessions={
            name: parse_session(body, where=where)
            for name, where, body in _entries("sessions", table)
        },
    )
    for name, session in config.sessions.items():
        check_session_name(name)
        check_references(session, config.pools, config.models, f"sessions.{name}")
    return config


def parse_session(table: Table, *, where: str = "session") -> SessionSpec:
    """Returns a session specification of a mapping, as TOML gives it.

    Raises:
        ConfigError: A key is unknown, missing, of the wrong type or out of range.
    """
    values = dict(table)
    ready: dict[str, object] = {}
    if "policy" in values:
        ready["policy"] = _parse_policy(values.pop("policy"), f"{where}.policy")
    if isinstance(values.get("sampler"), Mapping):
        sampler = dict(_table(f"{where}.sampler", values["sampler"]))
        values["sampler"] = sampler.pop("name", None)
        _check_keys(f"{where}.sampler", sampler, set())
    return _build(SessionSpec, where, values, **ready)


def session_to_table(spec: SessionSpec) -> dict[str, object]:
    """Returns the mapping that :func:`parse_session` reads back to ``spec``."""
    table: dict[str, object] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.name == "policy":
            value = {"name": _policy_name(value), **dataclasses.asdict(value)}
        if value is not None:
            table[field.name] = value
    return table


def check_references(
    spec: SessionSpec, pools: Iterable[str], models: Iterable[str], where: str
) -> None:
    """Checks that the pool and the models that a session names exist.

    Raises:
        ConfigError: One does not; the message lists those that do.
    """
    pools, models = list(pools), list(models)
    if spec.pool not in pools:
        msg = f"{where}: pool: no pool {spec.pool!r}{did_you_mean(spec.pool, pools)}"
        raise ConfigError(msg)
    for role, name in (("learner", spec.learner), ("reference", spec.reference)):
        if name is not None and name not in models:
            msg = f"{where}: {role}: no model {name!r}{did_you_mean(name, models)}"
            raise ConfigError(msg)


def _policy_name(policy: Policy) -> str:
    return next(name for name, cls in POLICIES.items() if type(policy) is cls)


def _parse_policy(value: object, where: str) -> object:
    table = dict(_table(where, {"name": value} if isinstance(value, str) else value))
    name = table.pop("name", None)
    if not isinstance(name, str) or name not in POLICIES:
        hint = did_you_mean(str(name), POLICIES)
        msg = f"{where}.name: unknown policy {name!r}{hint}"
        raise ConfigError(msg)
    return _build(POLICIES[name], where, table)


def _entries(kind: str, table: Table) -> list[tuple[str, str, Table]]:
    """Returns (name, dotted key, table) of every sub-table of ``table[kind]``."""
    tables = _table(kind, table.get(kind, {}))
    return [(k, f"{kind}.{k}", _table(f"{kind}.{k}", v)) for k, v in tables.items()]


def _table(where: str, value: object) -> Table:
    if not isinstance(value, Mapping):
        msg = f"{where}: expected a table; got {value!r}"
        raise ConfigError(msg)
    return cast("Table", value)


def _check_keys(where: str, table: Table, known: set[str]) -> None:
    for key in table:
        if key not in known:
            dotted = f"{where}.{key}" if where else key
            msg = f"unknown key {dotted!r}{did_you_mean(key, known)}"
            raise ConfigError(msg)


def _resolve(spec: T, field: str, base: Path) -> T:
    """Returns ``spec`` with a relative path made relative to ``base``."""
    value = getattr(spec, field)
    resolved = None if value is None else str(base / value)
    return dataclasses.replace(cast("Any", spec), **{field: resolved})


def _build(cls: type[T], where: str, table: Table, **ready: object) -> T:
    """Returns ``cls(**table, **ready)`` after checking keys, types and ranges."""
    # Imported here: pydantic takes longer to import than the rest of the package.
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cast("Any", cls))}
    _check_keys(where, table, set(fields) - set(ready))
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
