"""The formats that rows are written in, so that they are a pool of their own."""

from collections.abc import Callable, Mapping

from curator.offline._rows._arrow import ARROW, PARQUET
from curator.offline._rows._csv import CSV
from curator.offline._rows._format import RowFormat, Rows
from curator.offline._rows._huggingface import huggingface_like
from curator.offline._rows._jsonl import JSONL
from curator.offline._rows._lance import LANCE
from curator.offline._rows._mds import mds_like
from curator.offline._rows._tar import WEBDATASET

__all__ = ["FOLDERS", "FORMATS", "RowFormat", "Rows"]

FORMATS = (PARQUET, ARROW, JSONL, CSV, WEBDATASET, LANCE)
FOLDERS: Mapping[str, Callable[[str], RowFormat]] = {
    "huggingface": huggingface_like,
    "mds": mds_like,
}
"""Those without an ending, of the path of a pool: more than Arrow types is kept."""
