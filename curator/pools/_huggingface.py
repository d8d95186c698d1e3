"""Pools of folders that Hugging Face ``datasets`` saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from curator.errors import PoolError
from curator.pools._arrow import ArrowPool
from curator.pools._derived import cache_folder, local_copies
from curator.pools._files import PoolFile, file_in
from curator.pools._fingerprint import files_fingerprint

__all__ = ["huggingface_info", "huggingface_pool"]

_STATE = "state.json"
_SPLITS = "dataset_dict.json"
_INFO = "dataset_info.json"
# Features that are stored as their bytes and the path that they came from.
_FILES = {"Image", "Audio", "Video", "Pdf", "Nifti"}


def huggingface_pool(
    path: str | Path, *, fingerprint_cache: Path | None = None
) -> ArrowPool:
    """Returns the pool of a dataset that ``Dataset.save_to_disk`` wrote.

    Its Arrow files are mapped into memory, as the library does; the library itself is
    not needed. A picture, sound or video is delivered as its bytes, everything else as
    it is stored: a class label as its number.

    Args:
        path: The folder: it has ``state.json``. Of a dataset with splits, the folder
            of one split.
        fingerprint_cache: Where the files' digests are kept, to hash them once only.

    Raises:
        PoolError: There is no such dataset, it has splits or an order of its own, or
            its pictures are elsewhere.
    """
    names = _data_files(path)
    found = [file_in(path, name) for name in names]
    files = local_copies(found, cache_folder(fingerprint_cache))
    return ArrowPool(
        files,
        fingerprint=lambda: files_fingerprint(files, fingerprint_cache),
        view=lambda batch: _bytes_of_files(batch, str(path)),
    )


def huggingface_info(path: str | Path) -> dict[str, Any]:
    """Returns what a dataset that was saved says of itself: features, licence, ...

    Raises:
        PoolError: It is not there or damaged.
    """
    return _read(file_in(path, _INFO))


def _data_files(path: str | Path) -> list[str]:
    try:
        state = _read(file_in(path, _STATE))
    except PoolError as error:
        splits = _splits(path)
        if not splits:
            msg = (
                f"{path}: no folder that Dataset.save_to_disk wrote: {error}. Other "
                "files of a dataset: format = 'parquet', 'jsonl' or 'arrow'"
            )
            raise PoolError(msg) from error
        msg = (
            f"{path}: a dataset with the splits {', '.join(splits)}; a pool is one of "
            f"them: path = '{str(path).rstrip('/')}/{splits[0]}'"
        )
        raise PoolError(msg) from error
    if state.get("_indices_data_files") or state.get("_indices_files"):
        msg = (
            f"{path}: its rows have an order of their own, which an older version of "
            "datasets saved beside them: load it and save it again (flatten_indices)"
        )
        raise PoolError(msg)
    try:
        return [entry["filename"] for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        msg = f"{path}/{_STATE}: not what Dataset.save_to_disk writes: {error!r}"
        raise PoolError(msg) from error


def _splits(path: str | Path) -> list[str]:
    try:
        return list(_read(file_in(path, _SPLITS))["splits"])
    except (PoolError, KeyError, TypeError):
        return []


def _read(file: PoolFile) -> dict[str, Any]:
    try:
        with file.open_stream() as source:
            return json.loads(bytes(source.read()))
    except (OSError, ValueError) as error:
        msg = f"{file}: cannot be read: {error}"
        raise PoolError(msg) from error


def _bytes_of_files(batch: pa.RecordBatch, where: str) -> pa.RecordBatch:
    """Returns a record batch with pictures as their bytes instead of bytes and path."""
    features = _features(batch.schema)
    fields, arrays = list(batch.schema), list(batch.columns)
    for i, field in enumerate(fields):
        feature = features.get(field.name)
        is_one = isinstance(feature, dict)  # a list of features, or another one
        kind: object = cast("dict[str, Any]", feature).get("_type") if is_one else None
        if kind not in _FILES or not pa.types.is_struct(field.type):
            continue
        place = field.type.get_field_index("bytes")
        # flatten, so that a row without a picture has null bytes.
        contents = arrays[i].flatten()[place]
        if contents.null_count != arrays[i].null_count:
            msg = (
                f"{where}: column {field.name!r} has paths instead of the files' "
                "bytes; load the dataset and save it again (save_to_disk embeds them)"
            )
            raise PoolError(msg)
        arrays[i], fields[i] = contents, field.with_type(contents.type)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Returns what the library says of the columns, in the file itself."""
    metadata = cast("dict[bytes, bytes]", schema.metadata or {})
    text = metadata.get(b"huggingface", b"{}")
    return json.loads(text).get("info", {}).get("features", {})
