"""Writes the MDS shards of this folder; needs mosaicml-streaming."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np

OUT = Path(sys.argv[1])
COLUMNS = {
    "image": "bytes",
    "caption": "str",
    "label": "int",
    "score": "float32",
    "vec": "ndarray:float32:2,3",
    "meta": "json",
    "n": "str_int",
    "u": "uint16",
}

# The package imports everything that it can do; the writer needs next to nothing.
streaming = types.ModuleType("streaming")
streaming.__path__ = importlib.util.find_spec("streaming").submodule_search_locations
sys.modules["streaming"] = streaming

writer = importlib.import_module("streaming.base.format.mds.writer")

for name, compression in (("mds", None), ("mds_zstd", "zstd")):
    with writer.MDSWriter(
        out=str(OUT / name), columns=COLUMNS, compression=compression, size_limit=1500
    ) as out:
        for i in range(20):
            out.write(
                {
                    "image": bytes([i]) * (i * 7 % 40),
                    "caption": f"héllo {i}",
                    "label": i - 3,
                    "score": np.float32(i / 4),
                    "vec": np.arange(6, dtype=np.float32).reshape(2, 3) + i,
                    "meta": {"i": i},
                    "n": i * 10**12,
                    "u": np.uint16(i),
                }
            )
