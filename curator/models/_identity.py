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
from curator.errors import ConfigError, SnapshotError, StorageError
from curator.models._weights import plain_name

__all__ = ["check_scores", "model_identity"]

# Where and in which portions a model ran decides last bits, not which model it is.
_INCIDENTAL = frozenset({"device", "micro_batch_size"})
_SHOWN = 16  # characters of a fingerprint
_CHUNK_BYTES = 1 << 20
_MAX_HEADER_BYTES = 100_000_000  # of the format
# Manifests before this one have the digest of the file, not of what is in it.
_FIRST_OF_CONTENT = 3


def model_identity(spec: ModelSpec, *, of_content: bool = True) -> dict[str, object]:
    """Returns what is said of a model beside its scores, of types that JSON has.

    Args:
        spec: The model.
        of_content: Whether weights are told by their names, shapes and values, or else
            by the bytes of the file, which change when it is saved again.

    Raises:
        SnapshotError: Its weights are no safetensors file.
        StorageError: They cannot be read.
    """
    table = dataclasses.asdict(spec)
    del table["path"], table["model"]
    if spec.weights is not None:
        digest = _content_digest if of_content else _file_digest
        table["weights"] = digest(Path(spec.weights))
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
    of_content = int(manifest.get("format") or 0) >= _FIRST_OF_CONTENT
    identity = model_identity(spec, of_content=of_content)
    wanted = cast("dict[str, object]", json.loads(json.dumps(identity)))
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


def _content_digest(path: Path) -> str:
    """Returns a digest of the tensors of a safetensors file, by name.

    Raises:
        SnapshotError: It is no such file.
        StorageError: It cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            if start > _MAX_HEADER_BYTES:
                raise EOFError
            header = cast("dict[str, Any]", json.loads(file.read(start - 8)))
            header.pop("__metadata__", None)
            tensors = [(plain_name(name), entry) for name, entry in header.items()]
            for name, entry in sorted(tensors, key=lambda tensor: tensor[0]):
                told = [name, entry["dtype"], entry["shape"]]
                digest.update(json.dumps(told).encode())
                at, stop = entry["data_offsets"]
                file.seek(start + at)
                while at < stop:
                    data = file.read(min(_CHUNK_BYTES, stop - at))
                    if not data:
                        raise EOFError
                    digest.update(data)
                    at += len(data)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        OverflowError,
    ):
        msg = f"weights {str(path)!r} are no safetensors file, or a damaged one"
        raise SnapshotError(msg) from None
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    """Returns a digest of the bytes of a file.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(
                file, lambda: hashlib.blake2b(digest_size=16)
            ).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"weights {str(path)!r} cannot be read: {error.strerror or error}"
    )


def _shown(key: str, value: object) -> str:
    if key == "weights" and isinstance(value, str):
        return f"a set with the digest {value[:_SHOWN]}"
    return repr(value)
