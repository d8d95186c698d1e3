"""``scores = "FOLDER"`` in a session's table: a table model as its reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curator.errors import ConfigError

__all__ = ["SCORES_KEY", "with_scores"]

SCORES_KEY = "scores"


def with_scores(
    models: Mapping[str, Any], sessions: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the tables of models and sessions without the key ``scores``.

    Each becomes ``[models."SESSION.scores"]``, a table that is the session's reference;
    a reference that the session names is what the scores are to be of.

    Raises:
        ConfigError: It is no path, or a model has that name already.
    """
    all_models, all_sessions = dict(models), dict(sessions)
    for name, session in sessions.items():
        if not isinstance(session, Mapping) or SCORES_KEY not in session:
            continue
        body: dict[str, Any] = dict(session)  # pyright: ignore[reportUnknownArgumentType] - keys are TOML's
        path = body.pop(SCORES_KEY)
        where = f"sessions.{name}.{SCORES_KEY}"
        if not isinstance(path, str) or not path:
            msg = f"{where}: the folder that 'curator score' wrote; got {path!r}"
            raise ConfigError(msg)
        model = f"{name}.{SCORES_KEY}"
        if model in models:
            msg = f"{where}: there is a [models.{model!r}] already: rename that"
            raise ConfigError(msg)
        all_models[model] = {"kind": "table", "path": path}
        if "reference" in body:
            all_models[model]["model"] = body["reference"]
        all_sessions[name] = {**body, "reference": model}
    return all_models, all_sessions
