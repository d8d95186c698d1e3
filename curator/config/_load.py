"""Reading specifications from TOML or from plain mappings."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from curator.components import Foreign
from curator.config._extensions import load_extensions
from curator.config._ray import RaySpec
from curator.config._scores import SCORES_KEY, with_scores
from curator.config._security import TlsSpec, TokenSpec
from curator.config._server import ServerSpec
from curator.config._specs import (
    MODEL_OUTPUTS,
    Config,
    ModelSpec,
    PoolSpec,
    SessionSpec,
    check_session_name,
    did_you_mean,
)
from curator.config._tables import Table, build, check_keys, entries_of, table_of
from curator.errors import ConfigError
from curator.policies import POLICIES, Policy
from curator.samplers import (
    BATCH_PLANNERS,
    SAMPLERS,
    BatchPlanner,
    Sampler,
)

__all__ = [
    "batches_to_table",
    "check_references",
    "load_config",
    "parse_batches",
    "parse_config",
    "parse_policy",
    "parse_sampler",
    "parse_session",
    "policy_to_table",
    "read_toml",
    "sampler_to_table",
    "session_to_table",
]

T = TypeVar("T")
# What a session is put together from, by the key that names it.
_COMPONENTS: dict[str, Mapping[str, type[Any]]] = {
    "policy": POLICIES,
    "sampler": SAMPLERS,
}


def load_config(path: str | Path, *, executor: str | None = None) -> Config:
    """Returns the configuration of a TOML file.

    Relative paths in it are relative to the file.

    Args:
        path: The file.
        executor: In the place of its ``server.executor``.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or says something wrong.
    """
    path = Path(path)
    table = read_toml(path, "configuration")
    try:
        return parse_config(table, base=path.parent, executor=executor)
    except ConfigError as error:
        msg = f"{path}: {error}"
        raise ConfigError(msg) from error


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Returns the tables of a TOML file.

    Raises:
        ConfigError: It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read the {what} {str(path)!r}: {error.strerror}"
        raise ConfigError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"{path}: not valid TOML: {error}"
        raise ConfigError(msg) from error


def parse_config(
    table: Table, *, base: Path | None = None, executor: str | None = None
) -> Config:
    """Returns the configuration of a mapping, as TOML gives it.

    Args:
        table: Tables ``server``, ``ray``, ``pools``, ``models`` and ``sessions``.
        base: What relative paths are relative to; the current folder by default.
        executor: In the place of ``server.executor``.

    Raises:
        ConfigError: A key is unknown, missing, of the wrong type or out of range.
    """
    base = (base or Path.cwd()).absolute()
    check_keys("", table, {"server", "ray", "pools", "models", "sessions"})
    server = _parse_server(table_of("server", table.get("server", {})), base)
    if executor is not None:
        server = dataclasses.replace(server, executor=executor)
    elif "ray" in table and server.executor != "ray":
        msg = "ray: this table needs server.executor = 'ray'; set that, or leave it out"
        raise ConfigError(msg)
    load_extensions(server)  # sessions may name what they register
    models, sessions = with_scores(
        table_of("models", table.get("models", {})),
        table_of("sessions", table.get("sessions", {})),
    )
    config = Config(
        server=server,
        ray=build(RaySpec, "ray", table_of("ray", table.get("ray", {}))),
        pools={
            name: _resolve(build(PoolSpec, where, body), "path", base)
            for name, where, body in entries_of("pools", table.get("pools", {}))
        },
        models={
            name: _resolve(
                _resolve(build(ModelSpec, where, body), "weights", base), "path", base
            )
            for name, where, body in entries_of("models", models)
        },
        sessions={
            name: parse_session(body, where=where)
            for name, where, body in entries_of("sessions", sessions)
        },
    )
    for name, session in config.sessions.items():
        check_session_name(name)
        check_references(session, config.pools, config.models, f"sessions.{name}")
    return config


def _parse_server(table: Table, base: Path) -> ServerSpec:
    """Returns the ``[server]`` table with those inside it."""
    values = dict(table)
    ready: dict[str, object] = {}
    if "tls" in values:
        tls = build(TlsSpec, "server.tls", table_of("server.tls", values.pop("tls")))
        for field in ("cert", "key", "client_ca"):
            tls = _resolve(tls, field, base)
        ready["tls"] = tls
    if "tokens" in values:
        ready["tokens"] = {
            name: _resolve(build(TokenSpec, where, body), "file", base)
            for name, where, body in entries_of("server.tokens", values.pop("tokens"))
        }
    server = build(ServerSpec, "server", values, **ready)
    listen = server.listen
    if listen.startswith("unix:"):
        listen = f"unix:{base / listen.removeprefix('unix:')}"
    return dataclasses.replace(
        server,
        listen=listen,
        state_dir=str(base / server.state_dir),
        python_path=[str(base / entry) for entry in server.python_path],
    )


def parse_session(table: Table, *, where: str = "session") -> SessionSpec:
    """Returns a session specification of a mapping, as TOML gives it.

    Raises:
        ConfigError: A key is unknown, missing, of the wrong type or out of range.
    """
    values = dict(table)
    if SCORES_KEY in values:
        msg = (
            f"{where}.{SCORES_KEY}: a path of the server, which only its own "
            "configuration has. Name one of its models as the reference, which may be "
            "a table"
        )
        raise ConfigError(msg)
    ready: dict[str, object] = {}
    for key, known in _COMPONENTS.items():
        if key in values:
            ready[key] = _parse_component(key, values.pop(key), f"{where}.{key}", known)
    return build(SessionSpec, where, values, **ready)


def parse_policy(value: object, *, where: str = "policy") -> Policy:
    """Returns the policy of a name, or of a mapping with a ``name`` and its fields.

    Raises:
        ConfigError: A key is unknown, missing, of the wrong type or out of range.
    """
    return cast("Policy", _parse_component("policy", value, where, POLICIES))


def policy_to_table(policy: Policy) -> dict[str, object]:
    """Returns the mapping that :func:`parse_policy` reads back to ``policy``."""
    return _component_table(policy, POLICIES)


def parse_sampler(value: object, *, where: str = "sampler") -> Sampler:
    """Returns the sampler of a name, or of a mapping with a ``name`` and its fields.

    Raises:
        ConfigError: A key is unknown, missing, of the wrong type or out of range.
    """
    return cast("Sampler", _parse_component("sampler", value, where, SAMPLERS))


def sampler_to_table(sampler: Sampler) -> dict[str, object]:
    """Returns the mapping that :func:`parse_sampler` reads back to ``sampler``."""
    return _component_table(sampler, SAMPLERS)


def parse_batches(value: object, *, where: str = "batches") -> BatchPlanner:
    """Returns the batch planner of a name, or of a mapping with a ``name`` and fields.

    Raises:
        ConfigError: A key is unknown, of the wrong type or out of range.
    """
    found = _parse_component("batch plan", value, where, BATCH_PLANNERS)
    return cast("BatchPlanner", found)


def batches_to_table(batches: BatchPlanner) -> dict[str, object]:
    """Returns the mapping that :func:`parse_batches` reads back to ``batches``."""
    return _component_table(batches, BATCH_PLANNERS)


def session_to_table(spec: SessionSpec) -> dict[str, object]:
    """Returns the mapping that :func:`parse_session` reads back to ``spec``."""
    table: dict[str, object] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.name in _COMPONENTS:
            value = _component_table(value, _COMPONENTS[field.name])
        if value is not None:
            table[field.name] = value
    return table


def check_references(
    spec: SessionSpec,
    pools: Iterable[str],
    models: Mapping[str, ModelSpec],
    where: str,
) -> None:
    """Checks that the pool and the models that a session names exist, and fit.

    A model has to give what the policy needs of it, where the server is to run it.

    Raises:
        ConfigError: One does not; the message lists those that do.
    """
    for key, part in (("policy", spec.policy), ("sampler", spec.sampler)):
        if isinstance(part, Foreign):
            msg = f"{where}: {key}: {part.error()}"
            raise ConfigError(msg)
    pools = list(pools)
    if spec.pool not in pools:
        msg = f"{where}: pool: no pool {spec.pool!r}{did_you_mean(spec.pool, pools)}"
        raise ConfigError(msg)
    for role, name in (("learner", spec.learner), ("reference", spec.reference)):
        if name is None:
            continue
        if name not in models:
            msg = f"{where}: {role}: no model {name!r}{did_you_mean(name, models)}"
            raise ConfigError(msg)
        model = models[name]
        if role == "learner" and model.kind == "table":
            msg = (
                f"{where}: learner: model {name!r} is a table, and a learner changes "
                "with every step; a table can be the reference"
            )
            raise ConfigError(msg)
        if model.model is not None:
            _check_stand_in(f"{where}: models.{name}.model", model.model, models)
        # A learner that the trainer runs is only a name here.
        if role == "reference" or spec.features == "server":
            _check_outputs(spec, role, name, model, where)


def _check_stand_in(where: str, name: str, models: Mapping[str, ModelSpec]) -> None:
    """Checks the model that a table stands for."""
    if name not in models:
        msg = f"{where}: no model {name!r}{did_you_mean(name, models)}"
        raise ConfigError(msg)
    if models[name].kind == "table":
        msg = (
            f"{where}: {name!r} is a table itself; name the model that computed the "
            "scores, or leave it out"
        )
        raise ConfigError(msg)


def _check_outputs(
    spec: SessionSpec, role: str, name: str, model: ModelSpec, where: str
) -> None:
    """Checks that a model is of a kind that gives what the policy needs of it."""
    prefix = f"{role}."
    needed = {
        need.removeprefix(prefix)
        for need in spec.policy.needs
        if need.startswith(prefix)
    }
    if model.outputs is None or needed <= model.outputs:
        return
    kinds = [kind for kind, given in MODEL_OUTPUTS.items() if needed <= given]
    if role == "reference":
        kinds.append("table")
    hint = f"Name one of kind {' or '.join(kinds)}, or" if kinds else "Either"
    msg = (
        f"{where}: policy: {spec.policy!r} needs "
        f"{', '.join(prefix + output for output in sorted(needed))}; {role} {name!r} "
        f"is of kind {model.kind!r}, which gives {', '.join(sorted(model.outputs))}. "
        f"{hint} change what the policy reads (its loss or score), or let the trainer "
        "compute it: features = 'trainer'"
    )
    raise ConfigError(msg)


def _component_table(
    component: object, known: Mapping[str, type[Any]]
) -> dict[str, object]:
    if isinstance(component, Foreign):
        return {"name": component.name, **component.options}
    cls = type(component)
    name = next((name for name, other in known.items() if other is cls), None)
    if name is None:
        kind = "sampler" if known is SAMPLERS else "policy"
        msg = (
            f"{component!r} is no {kind} that has a name here: put @register_{kind} "
            "above its class"
        )
        raise ConfigError(msg)
    fields = dataclasses.asdict(cast("Any", component))
    return {"name": name, **{k: v for k, v in fields.items() if v is not None}}


def _parse_component(
    kind: str, value: object, where: str, known: Mapping[str, type[Any]]
) -> object:
    """Returns the policy or sampler of a name, or of a table with a name and fields."""
    if isinstance(value, Foreign):
        return value
    table = dict(table_of(where, {"name": value} if isinstance(value, str) else value))
    name = table.pop("name", None)
    if not isinstance(name, str) or name not in known:
        hint = did_you_mean(str(name), known)
        msg = (
            f"{where}.name: unknown {kind} {name!r}{hint}. One of your own is known "
            f"where its module is imported (server.extensions)"
        )
        raise ConfigError(msg)
    return build(known[name], where, table)


def _resolve(spec: T, field: str, base: Path) -> T:
    """Returns ``spec`` with a relative path, unless a URI, relative to ``base``."""
    value = getattr(spec, field)
    if value is None or "://" in value:
        return spec
    resolved = str(base / value)
    return dataclasses.replace(cast("Any", spec), **{field: resolved})
