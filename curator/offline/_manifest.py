"""What the scores in a folder are of: written first, and compared when it goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

import curator
from curator.errors import ConfigError, StorageError
from curator.files import replacing
from curator.models import ScoreTable

__all__ = ["Manifest", "agree", "code_versions"]

# 1 had no columns, no condition and no digest of the weights; 2 had plain ids.
_FORMAT = 3
# Tools that read a folder of Parquet skip names that start so.
_NAME = "_manifest.json"
_MAX_SHOWN = 40


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The identity of a folder of scores: equal ones lead to equal files.

    Attributes:
        pool_fingerprint: Of the pool's data.
        model_fingerprint: Of factory, arguments, weights, dtype and columns.
        model: What else the last bits may depend on, and what a reader wants to know:
            the model's specification without the path of its weights, which the
            fingerprint covers.
        outputs: Names of what is computed, sorted.
        columns: Names of columns of the pool that are copied, sorted.
        where: The condition that the examples meet; None for all of the pool.
        pool_num_examples: Size of the pool.
        num_examples: How many examples are scored, the first that meet the condition.
        shard_size: Examples per file.
        versions: Of the code that scores, by package.
        format: Of the files.
    """

    pool_fingerprint: str
    model_fingerprint: str
    model: Mapping[str, object]
    outputs: list[str]
    columns: list[str]
    where: str | None
    pool_num_examples: int
    num_examples: int
    shard_size: int
    versions: Mapping[str, str]
    format: int = _FORMAT

    @property
    def num_shards(self) -> int:
        """How many files there are when all is done."""
        return -(-self.num_examples // self.shard_size)

    def size(self, shard: int) -> int:
        """Returns how many examples one file has."""
        return min(self.shard_size, self.num_examples - shard * self.shard_size)

    def span(self, shard: int) -> tuple[int, int]:
        """Returns from which to which example one file goes, in their order."""
        start = shard * self.shard_size
        return start, start + self.size(shard)

    def to_json(self) -> str:
        """Returns the same text for the same identity."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def code_versions() -> dict[str, str]:
    """Returns the versions of the code that scores."""
    return {
        "batch-curator": curator.__version__,
        "torch": importlib.metadata.version("torch"),
    }


def agree(folder: Path, manifest: Manifest) -> None:
    """Writes a manifest to a folder, or checks that the one there is the same.

    Raises:
        ConfigError: The folder holds scores with another manifest, or other files.
        StorageError: The folder cannot be read or written.
    """
    path = folder / _NAME
    recorded = _recorded(folder, path)
    if recorded is None:
        _check_empty(folder)
        _write(path, manifest.to_json())
        return
    found = _flat(recorded)
    given = _flat(json.loads(manifest.to_json()))
    if found.get("format") != given["format"]:
        msg = (
            f"{str(folder)!r} holds scores of another version of batch-curator (format "
            f"{found.get('format')}; this one writes {given['format']}). They can be "
            "read, but not continued: choose another folder, or delete that one"
        )
        raise ConfigError(msg)
    changes = [
        f"{key} was {_shown(found.get(key))}, is now {_shown(given.get(key))}"
        for key in sorted({*found, *given})
        if found.get(key) != given.get(key)
    ]
    if changes and not _parts(folder):
        # Of a run that failed before its first file: nothing is lost with it.
        _write(path, manifest.to_json())
    elif changes:
        msg = (
            f"{str(folder)!r} holds scores of another run: {'; '.join(changes)}. Put "
            "back what it was to continue that one, or choose another folder"
        )
        raise ConfigError(msg)


def _recorded(folder: Path, path: Path) -> Mapping[str, Any] | None:
    """Returns the manifest of a folder, None where it holds no scores.

    Each file of scores has it, too: one that was lost or damaged is written again.
    """
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        damage = None
    except ValueError as error:
        damage = error
    except OSError as error:
        msg = f"cannot read {str(path)!r}: {error.strerror or error}"
        raise StorageError(msg) from error
    for part in _parts(folder):
        with contextlib.suppress(OSError, pa.ArrowException, KeyError, ValueError):
            metadata: dict[bytes, bytes] = pq.read_schema(part).metadata or {}
            text = metadata[ScoreTable.MANIFEST_KEY].decode()
            found = _parsed(text)
            _write(path, text)
            return found
    if damage is None:
        return None
    msg = f"{str(path)!r} is damaged ({damage}): delete the folder it is in"
    raise StorageError(msg) from damage


def _parsed(text: str) -> Mapping[str, Any]:
    table = json.loads(text)
    if not isinstance(table, Mapping):
        msg = "no table"
        raise ValueError(msg)
    return cast("Mapping[str, Any]", table)


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _check_empty(folder: Path) -> None:
    others = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if others:
        msg = (
            f"{str(folder)!r} is not empty and holds no scores of this command "
            f"({', '.join(others[:3])} ...): choose another folder"
        )
        raise ConfigError(msg)


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _flat(table: Mapping[str, Any]) -> dict[str, object]:
    """Returns a table of tables as one with dotted keys."""
    flat: dict[str, object] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner = _flat(cast("Mapping[str, Any]", value))
            flat |= {f"{key}.{name}": part for name, part in inner.items()}
        else:
            flat[key] = value
    return flat


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
