"""What a model is, in words that its scores keep, and whether scores are of it.

Nothing here loads a model: that scores make it unnecessary is what they are for.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from curator.config import ModelSpec
from curator.errors import ConfigError, StorageError

__all__ = ["check_scores", "model_identity"]

# Where and in which portions a model ran decides last bits, not which model it is.
_INCIDENTAL = frozenset({"device", "micro_batch_size"})
_SHOWN = 16  # characters of a fingerprint


def model_identity(spec: ModelSpec) -> dict[str, object]:
    """Returns what is said of a model beside its scores, of types that JSON has.

    Raises:
        StorageError: Its weights cannot be read.
    """
    table = dataclasses.asdict(spec)
    del table["path"], table["model"]
    table["weights"] = None if spec.weights is None else _digest(Path(spec.weights))
    # Which of several equal devices it is does not matter.
    table["device"] = spec.device.partition(":")[0]
    return table


def check_scores(
    manifest: Mapping[str, Any],
    *,
    path: str,
    pool: tuple[str, str],
    model: tuple[str, ModelSpec] | None,
) -> None:
    """Checks that scores are of a pool, and of a model.

    Args:
        manifest: What the scores say of themselves.
        path: Where they lie, for the message.
        pool: Name and fingerprint of the pool that they are to be used with.
        model: Name and specification of the model that they are to stand for; None for
            any.

    Raises:
        ConfigError: They are of another pool or model; the message says which.
        StorageError: The model's weights cannot be read.
    """
    name, fingerprint = pool
    scored = str(manifest.get("pool_fingerprint"))
    if scored != fingerprint:
        msg = (
            f"the scores in {path!r} are of a pool with the fingerprint "
            f"{scored[:_SHOWN]}, and pool {name!r} has {fingerprint[:_SHOWN]}: their "
            "ids would mean other examples. Name the pool that was scored, restore its "
            "data, or score this one with 'curator score'"
        )
        raise ConfigError(msg)
    if model is None:
        return
    name, spec = model
    recorded = cast("Mapping[str, object]", manifest.get("model") or {})
    wanted = cast("dict[str, object]", json.loads(json.dumps(model_identity(spec))))
    changes = [
        f"{key} was {_shown(key, recorded.get(key))}, is now {_shown(key, value)}"
        for key, value in sorted(wanted.items())
        if key not in _INCIDENTAL and recorded.get(key) != value
    ]
    if changes:
        scored = str(manifest.get("model_fingerprint"))
        msg = (
            f"the scores in {path!r} are not of model {name!r}, but of one with the "
            f"fingerprint {scored[:_SHOWN]}: {'; '.join(changes)}. Put it back, name "
            "the model that scored, or score again with 'curator score'"
        )
        raise ConfigError(msg)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(
                file, lambda: hashlib.blake2b(digest_size=16)
            ).hexdigest()
    except OSError as error:
        msg = f"weights {str(path)!r} cannot be read: {error.strerror or error}"
        raise StorageError(msg) from error


def _shown(key: str, value: object) -> str:
    if key == "weights" and isinstance(value, str):
        return f"a file with the digest {value[:_SHOWN]}"
    return repr(value)
