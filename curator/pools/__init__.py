"""Pools: everything that could be chosen, by id. Importing this imports pyarrow."""

from curator.pools._arrow import ArrowPool
from curator.pools._base import Pool
from curator.pools._csv_types import CSV_BLOCK_BYTES, CSV_TYPES, fits_csv_type
from curator.pools._guess import guess_format
from curator.pools._huggingface import huggingface_info
from curator.pools._location import open_location
from curator.pools._mds import read_mds_columns
from curator.pools._mds_types import MdsColumn
from curator.pools._memory import MemoryPool
from curator.pools._open import FORMATS, open_pool
from curator.pools._parquet import ParquetPool
from curator.pools._spans import RowSpans, zero_rows
from curator.pools._virtual import VirtualPool

__all__ = [
    "CSV_BLOCK_BYTES",
    "CSV_TYPES",
    "FORMATS",
    "ArrowPool",
    "MdsColumn",
    "MemoryPool",
    "ParquetPool",
    "Pool",
    "RowSpans",
    "VirtualPool",
    "fits_csv_type",
    "guess_format",
    "huggingface_info",
    "open_location",
    "open_pool",
    "read_mds_columns",
    "zero_rows",
]
