"""Writes the example's data: ``python make_data.py FOLDER``.

``pairs.parquet`` has 20,000 pairs of vectors, half of them mismatched, and says which.
``reference.safetensors`` are weights of a model that tells them apart.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pairs import WIDTH, build
from safetensors.numpy import save

NUM_EXAMPLES = 20_000


def main(folder: Path) -> None:
    """Makes both files; the same ones each time."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
    image = rng.standard_normal((NUM_EXAMPLES, WIDTH), np.float32)
    mismatched = np.arange(NUM_EXAMPLES) % 2 == 1
    text = np.where(mismatched[:, None], rng.permutation(image), image) @ rotation
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(image),
            "text": pa.FixedShapeTensorArray.from_numpy_ndarray(text),
            "mismatched": mismatched,
        }
    )
    pq.write_table(table, folder / "pairs.parquet", row_group_size=1000)
    weights = {key: value.numpy() for key, value in build().state_dict().items()}
    weights["image.weight"] = np.eye(WIDTH, dtype=np.float32)
    weights["text.weight"] = rotation
    weights["image.bias"] = weights["text.bias"] = np.zeros(WIDTH, np.float32)
    (folder / "reference.safetensors").write_bytes(save(weights))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
