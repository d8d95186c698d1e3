import json
import shutil
from pathlib import Path

import numpy as np
import pool_formats
import pyarrow as pa
import pytest

from curator.errors import PoolError
from curator.pools import open_pool

DATA = Path(__file__).parent / "data"


def test_what_datasets_saved_is_read():
    pool = open_pool("huggingface", DATA / "hf")

    assert pool.num_examples == 12
    assert pool.schema.equals(
        pa.schema(
            [
                ("text", pa.string()),
                ("label", pa.int64()),
                ("image", pa.binary()),
                ("tokens", pa.list_(pa.int32())),
            ]
        )
    )
    taken = pool.take(np.array([7, 5]))
    pictures = taken.column("image").to_pylist()
    assert taken.drop_columns("image").to_pylist() == [
        {"text": "text 7", "label": 1, "tokens": [*range(7)]},
        {"text": "text 5", "label": 1, "tokens": [*range(5)]},
    ]
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[1] is None


def test_rows_that_were_selected_are_in_their_order():
    pool = open_pool("huggingface", DATA / "hf_selected")

    texts = pool.take(np.arange(3), ["text"]).column(0).to_pylist()
    assert texts == ["text 3", "text 1", "text 2"]


def test_dataset_with_splits_names_them():
    message = r"hf_splits: a dataset with the splits train, test; .* path = '.*/train'"
    with pytest.raises(PoolError, match=message):
        open_pool("huggingface", DATA / "hf_splits")


def test_other_folder_is_told(tmp_path):
    with pytest.raises(PoolError, match=r"no folder that Dataset\.save_to_disk wrote"):
        open_pool("huggingface", tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(PoolError, match=r"state\.json: cannot be read"):
        open_pool("huggingface", tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(PoolError, match=r"state\.json: not what Dataset\.save_to_disk"):
        open_pool("huggingface", tmp_path)
    (tmp_path / "state.json").write_text('{"_indices_data_files": [{"filename": "a"}]}')
    with pytest.raises(PoolError, match=r"its rows have an order of their own"):
        open_pool("huggingface", tmp_path)


def test_file_that_is_missing_or_damaged_is_named(tmp_path):
    folder = shutil.copytree(DATA / "hf", tmp_path / "hf")
    file = folder / "data-00001-of-00002.arrow"
    file.write_bytes(b"else")
    with pytest.raises(
        PoolError, match=r"data-00001-of-00002\.arrow: not an Arrow IPC"
    ):
        open_pool("huggingface", folder)
    file.unlink()
    with pytest.raises(PoolError, match=r"data-00001-of-00002\.arrow cannot be read"):
        open_pool("huggingface", folder)


def test_pictures_that_are_paths_are_told(tmp_path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": "a.png"}, None], struct)
    folder = pool_formats.write_huggingface(
        tmp_path / "hf", [pa.table({"image": images})], {"image": {"_type": "Image"}}
    )

    with pytest.raises(
        PoolError, match=r"column 'image' has paths instead of the files"
    ):
        open_pool("huggingface", folder)


def test_struct_that_is_no_picture_stays_one(tmp_path):
    rows = pa.table({"a": [{"bytes": b"x", "path": "y"}]})
    folder = pool_formats.write_huggingface(
        tmp_path / "hf", [rows], {"a": {"bytes": {"_type": "Value", "dtype": "binary"}}}
    )

    assert json.loads((folder / "state.json").read_text())["_data_files"]
    pool = open_pool("huggingface", folder)
    assert pool.take(np.array([0])).to_pylist() == rows.to_pylist()
