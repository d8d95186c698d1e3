"""Rows as a dataset that Hugging Face ``datasets`` loads from disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from curator.offline._rows._format import RowFormat, Rows
from curator.offline._rows._whole import whole_folder
from curator.pools import huggingface_info

__all__ = ["huggingface_like"]

_FILE = "data-00000-of-00001.arrow"
_KEPT = ("citation", "description", "homepage", "license")  # the others are of its rows


def huggingface_like(path: str) -> RowFormat:
    """Returns the format of datasets with the features of the one at ``path``.

    Raises:
        PoolError: It does not say them.
    """
    info = huggingface_info(path)

    def write(path: Path, rows: Rows) -> None:
        features: dict[str, Any] = info.get("features") or {}
        if set(features) != set(rows.schema.names):  # the library goes by the types
            features = {}
        about: dict[str, Any] = {name: info.get(name, "") for name in _KEPT}
        with whole_folder(path) as folder:
            _write_data(folder / _FILE, rows, features)
            if features:
                about["features"] = features
            _write_json(folder / "dataset_info.json", about)
            _write_json(folder / "state.json", _state(folder / _FILE))

    return RowFormat("huggingface", (), lambda field: None, write)


def _write_data(path: Path, rows: Rows, features: Mapping[str, Any]) -> None:
    metadata = dict(rows.schema.metadata)
    if features:
        metadata["huggingface"] = json.dumps({"info": {"features": features}})
    files = [
        i
        for i, field in enumerate(rows.schema)
        if pa.types.is_binary(field.type) and _is_file(features.get(field.name))
    ]
    schema = rows.schema
    for i in files:
        field = schema.field(i)
        schema = schema.set(
            i,
            field.with_type(pa.struct([("bytes", field.type), ("path", pa.string())])),
        )
    schema = schema.with_metadata(metadata)
    with path.open("wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for _, block in rows.blocks:
            columns = list(block.columns)
            for i in files:
                columns[i] = _with_paths(columns[i])
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def _is_file(feature: dict[str, Any] | None) -> bool:
    """Tells whether bytes are those of a picture, a sound, ...: all but plain ones."""
    return feature is not None and feature["_type"] != "Value"


def _with_paths(contents: pa.Array) -> pa.Array:
    """Returns files as they are stored: their bytes, and no path."""
    paths = pa.nulls(len(contents), pa.string())
    return pa.StructArray.from_arrays(
        [contents, paths], ["bytes", "path"], mask=contents.is_null()
    )


def _state(data: Path) -> dict[str, Any]:
    with data.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "_data_files": [{"filename": data.name}],
        "_fingerprint": digest[:16],  # what the library keeps under it is of these rows
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2))
