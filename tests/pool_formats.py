"""The same rows in every format that pools are made of."""

import gzip
import itertools
import json
import math
import struct

import numpy as np
import pool_tables
import pyarrow as pa
import webdataset

COLUMNS = {
    "txt": pa.string(),
    "cls": pa.int64(),
    "real": pa.float64(),
    "jpg": pa.binary(),
    "tokens": pa.list_(pa.int64()),
}


def table(num_rows=60):
    """Returns rows of text, numbers, bytes and lists."""
    rows = range(num_rows)
    return pa.table(
        {
            "txt": [f"héllo, {i}\n" * (i % 3 + 1) for i in rows],
            "cls": [i - 3 for i in rows],
            "real": [i / 8 + 0.5 for i in rows],
            "jpg": [bytes([i % 256]) * (i * 37 % 300) for i in rows],
            "tokens": [list(range(i % 5 + 1)) for i in rows],
        },
        schema=pa.schema(COLUMNS.items()),
    )


def write_jsonl(path, table, pack=lambda data: data):
    lines = [json.dumps(row) + "\n" for row in table.drop_columns("jpg").to_pylist()]
    path.write_bytes(pack("".join(lines).encode()))
    return path


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def write_csv(path, table, pack=lambda data: data):
    rows = table.drop_columns(["jpg", "tokens"]).to_pylist()
    text = "".join(f'"{r["txt"]}",{r["cls"]},{r["real"]!r}\n' for r in rows)
    path.write_bytes(pack(f"txt,cls,real\n{text}".encode()))
    return path


def write_tar(path, table):
    with webdataset.TarWriter(str(path), mtime=0) as out:
        for i, row in enumerate(table.to_pylist()):
            members = {name: row[name] for name in ("jpg", "txt", "cls")}
            out.write({"__key__": f"shard/{i:06d}", **members})
    return path


def write_lance(path, table):
    import lance

    lance.write_dataset(table, path, max_rows_per_file=17)
    return path


def write_huggingface(path, tables, features=None):
    """Writes what ``Dataset.save_to_disk`` writes; data/ has what it really wrote."""
    path.mkdir()
    info = json.dumps({"info": {"features": features or {}}})
    names = [f"data-{i:05d}-of-{len(tables):05d}.arrow" for i in range(len(tables))]
    for name, part in zip(names, tables, strict=True):
        part = part.replace_schema_metadata({"huggingface": info})
        pool_tables.write_stream(path / name, part)
    state = {"_data_files": [{"filename": name} for name in names]}
    (path / "state.json").write_text(json.dumps(state))
    (path / "dataset_info.json").write_text(json.dumps({"features": features}))
    return path


MDS_ENCODINGS = {"cls": "int", "jpg": "bytes", "real": "float64", "txt": "str"}


def write_mds(path, tables, encodings=None, pack=None):
    """Writes MDS shards of cells that are bytes already, or of the rows of tables.

    A test compares it with what MosaicML's own writer wrote.
    """
    encodings = dict(sorted((encodings or MDS_ENCODINGS).items()))
    sizes = [_mds_size(encoding) for encoding in encodings.values()]
    path.mkdir()
    shards = []
    for i, part in enumerate(tables):
        samples = []
        for row in part.to_pylist():
            cells = [_mds_cell(row[name], encodings[name]) for name in encodings]
            varying = [len(c) for c, s in zip(cells, sizes, strict=True) if s is None]
            samples.append(struct.pack(f"<{len(varying)}I", *varying) + b"".join(cells))
        config = {
            "column_encodings": list(encodings.values()),
            "column_names": list(encodings),
            "column_sizes": sizes,
            "compression": None,
            "format": "mds",
            "hashes": [],
            "size_limit": 1500,
            "version": 2,
        }
        text = json.dumps(config, sort_keys=True).encode()
        start = 4 + 4 * (len(samples) + 1) + len(text)
        ends = np.cumsum([start, *map(len, samples)]).astype("<u4")
        data = struct.pack("<I", len(samples)) + ends.tobytes() + text
        data += b"".join(samples)
        name = f"shard.{i:05d}.mds"
        entry = {
            **config,
            "raw_data": {"basename": name, "bytes": len(data), "hashes": {}},
            "samples": len(samples),
            "zip_data": None,
        }
        if pack is None:
            (path / name).write_bytes(data)
        else:
            (path / f"{name}.zstd").write_bytes(pack(data))
            entry["compression"] = "zstd:3"
            entry["zip_data"] = {"basename": f"{name}.zstd", "bytes": 0, "hashes": {}}
        shards.append(dict(sorted(entry.items())))
    (path / "index.json").write_text(json.dumps({"shards": shards, "version": 2}))
    return path


def _mds_size(encoding):
    if encoding.startswith(("bytes", "jpeg", "png", "str", "json")):
        return None
    dtype, shape = encoding, "1"
    if encoding.startswith("ndarray"):
        _, dtype, shape = encoding.split(":")
    width = np.dtype("int64" if dtype == "int" else dtype).itemsize
    return width * math.prod(map(int, shape.split(",")))


def _mds_cell(value, encoding):
    if isinstance(value, bytes):
        return value
    if encoding in ("str", "json", "str_int"):
        return str(value).encode()
    if encoding.startswith("ndarray"):
        return np.asarray(value, np.float32).tobytes()
    dtype = {"int": "<i8", "float64": "<f8", "float32": "<f4", "uint16": "<u2"}
    return np.array(value, dtype[encoding]).tobytes()


def _parts(folder, table, write, suffix, **options):
    folder.mkdir()
    for i, part in enumerate(split(table)):
        write(folder / f"part-{i}{suffix}", part, **options)
    return folder


def split(table):
    """Returns a table in three parts."""
    cuts = [0, table.num_rows // 5, table.num_rows // 2, table.num_rows]
    return [table.slice(a, b - a) for a, b in itertools.pairwise(cuts)]


KINDS = {
    "arrow": ("arrow", pool_tables.write_arrow, ".arrow", list(COLUMNS)),
    "parquet": ("parquet", pool_tables.write_parquet, ".parquet", list(COLUMNS)),
    "jsonl": ("jsonl", write_jsonl, ".jsonl", ["txt", "cls", "real", "tokens"]),
    "jsonl-gz": (
        "jsonl",
        lambda path, part: write_jsonl(path, part, lambda d: gzip.compress(d, mtime=0)),
        ".jsonl.gz",
        ["txt", "cls", "real", "tokens"],
    ),
    "jsonl-zst": (
        "jsonl",
        lambda path, part: write_jsonl(path, part, zstd),
        ".jsonl.zst",
        ["txt", "cls", "real", "tokens"],
    ),
    "csv": ("csv", write_csv, ".csv", ["txt", "cls", "real"]),
    "csv-gz": (
        "csv",
        lambda path, part: write_csv(path, part, lambda d: gzip.compress(d, mtime=0)),
        ".csv.gz",
        ["txt", "cls", "real"],
    ),
    "webdataset": ("webdataset", write_tar, ".tar", ["txt", "cls", "jpg"]),
    "huggingface": ("huggingface", None, "", list(COLUMNS)),
    "lance": ("lance", None, "", list(COLUMNS)),
    "mds": ("mds", None, "", list(MDS_ENCODINGS)),
    "mds-zstd": ("mds", None, "", list(MDS_ENCODINGS)),
}
"""Format, writer of a file, its ending, and the columns that it can have."""


def write(kind, folder, rows):
    """Writes rows into a new folder, and returns it."""
    _, writer, suffix, _ = KINDS[kind]
    if writer is not None:
        return _parts(folder, rows, writer, suffix)
    if kind == "lance":
        return write_lance(folder, rows)
    if kind == "huggingface":
        return write_huggingface(folder, split(rows))
    return write_mds(folder, split(rows), pack=zstd if kind == "mds-zstd" else None)
