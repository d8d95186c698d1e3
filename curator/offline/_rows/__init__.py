"""The formats that rows are written in, so that they are a pool of their own."""

from curator.offline._rows._arrow import ARROW, PARQUET
from curator.offline._rows._csv import CSV
from curator.offline._rows._format import RowFormat, Rows
from curator.offline._rows._jsonl import JSONL
from curator.offline._rows._lance import LANCE
from curator.offline._rows._tar import WEBDATASET

__all__ = ["FORMATS", "RowFormat", "Rows"]

FORMATS = (PARQUET, ARROW, JSONL, CSV, WEBDATASET, LANCE)
