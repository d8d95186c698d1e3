"""Writes the Hugging Face datasets of this folder; needs datasets and Pillow."""

import io
import sys
from pathlib import Path

import datasets  # pyright: ignore[reportMissingImports]
import numpy as np
from PIL import Image as Picture

OUT = Path(sys.argv[1])


def png(i):
    with io.BytesIO() as file:
        Picture.fromarray(np.full((4, 4, 3), i * 10, np.uint8)).save(file, "PNG")
        return file.getvalue()


data = datasets.Dataset.from_dict(
    {
        "text": [f"text {i}" for i in range(12)],
        "label": [i % 2 for i in range(12)],
        "image": [
            None if i == 5 else {"bytes": png(i), "path": None} for i in range(12)
        ],
        "tokens": [list(range(i)) for i in range(12)],
    },
    features=datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "image": datasets.Image(),
            "tokens": datasets.Sequence(datasets.Value("int32")),
        }
    ),
)
data.save_to_disk(OUT / "hf", num_shards=2)
data.select([3, 1, 2]).save_to_disk(OUT / "hf_selected")
parts = {"train": data.select(range(3)), "test": data.select(range(2))}
datasets.DatasetDict(parts).save_to_disk(OUT / "hf_splits")
