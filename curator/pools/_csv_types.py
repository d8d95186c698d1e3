"""What a cell of CSV has to look like to be read as another type than text."""

from __future__ import annotations

import contextlib

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["CSV_BLOCK_BYTES", "CSV_FALSE", "CSV_TRUE", "CSV_TYPES", "fits_csv_type"]

CSV_BLOCK_BYTES = 4 << 20
"""The reader's block: a row that is longer may not be found whole in two of them."""
CSV_TRUE, CSV_FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
# Leading zeros belong to codes (postcodes), and more digits than a float keeps to
# identifiers.
_PATTERNS = {
    pa.int64(): r"^-?(0|[1-9][0-9]*)$",
    pa.float64(): (
        r"^-?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
        r"|^-?(inf|Infinity)$|^(nan|NaN)$"
    ),
    pa.bool_(): f"^({'|'.join(CSV_TRUE + CSV_FALSE)})$",
}
CSV_TYPES = tuple(_PATTERNS)
"""All types but text; a column has the first that all its cells fit."""


def fits_csv_type(cells: pa.StringArray, dtype: pa.DataType) -> bool:
    """Tells whether cells, none of them empty, all read as one of the types."""
    if not pc.all(pc.match_substring_regex(cells, _PATTERNS[dtype])).as_py():
        return False
    with contextlib.suppress(pa.ArrowInvalid):  # more than 64 bits
        return len(pc.cast(cells, dtype)) == len(cells)
    return False
