"""Gets Fashion-MNIST out of its Debian package; the benchmark itself downloads nothing.

    python -m benchmarks.quality.data

70,000 pictures of clothes, 28 x 28, in ten balanced classes (Xiao et al. 2017, arXiv
1708.07747; MIT licence). The package is downloaded and unpacked into a folder, not
installed, and needs no privileges.
"""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.quality.task import to_table

__all__ = ["is_there", "read_part"]

PACKAGE = "dataset-fashion-mnist"
FOLDER = Path("out/quality/data")
INSIDE = Path("usr/share/datasets/fashion-mnist")
PARTS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}


def main() -> int:
    """Writes ``train.parquet`` and ``test.parquet``."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for part, (prefix, count) in PARTS.items():
        path = FOLDER / f"{part}.parquet"
        if path.exists():
            print(f"{path}: is there")
            continue
        source = _source(prefix)
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        if images.shape != (count, 28, 28) or labels.shape != (count,):
            sys.exit(
                f"{source}: not Fashion-MNIST, shapes {images.shape} {labels.shape}"
            )
        pq.write_table(to_table({"image": images, "label": labels}), path)
        print(f"{path}: {count} pictures")
    return 0


def is_there() -> bool:
    """Returns whether the set-up step has been run."""
    return all((FOLDER / f"{part}.parquet").exists() for part in PARTS)


def read_part(part: str) -> dict[str, np.ndarray]:
    """Returns a part: ``image``, uint8 [N, 28, 28], and ``label``, int64 [N]."""
    path = FOLDER / f"{part}.parquet"
    if not path.exists():
        sys.exit(f"{path} is missing: run  python -m benchmarks.quality.data  first")
    table = pq.read_table(path)
    return {
        "image": table["image"].combine_chunks().to_numpy_ndarray(),
        "label": table["label"].to_numpy().astype(np.int64),
    }


def read_idx(path: Path) -> np.ndarray:
    """Returns the bytes of an IDX file, in the shape that its header gives.

    Raises:
        ValueError: It is no IDX file of unsigned bytes, or cut off.
    """
    raw = gzip.decompress(path.read_bytes())
    zeros, kind, ndim = struct.unpack_from(">HBB", raw)
    if zeros or kind != 8:
        msg = f"{path}: not an IDX file of unsigned bytes"
        raise ValueError(msg)
    shape = struct.unpack_from(f">{ndim}I", raw, 4)
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
    return values.reshape(shape)


def _source(prefix: str) -> Path:
    """Returns the folder of the package's files: given, installed or downloaded."""
    unpacked = FOLDER / "package"
    for folder in (FOLDER, Path("/") / INSIDE, unpacked / INSIDE):
        if (folder / f"{prefix}-images-idx3-ubyte.gz").exists():
            return folder
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        sys.exit(_by_hand("there is no apt-get here"))
    print(f"downloading the Debian package {PACKAGE} (31 MB) ...")
    with tempfile.TemporaryDirectory() as folder:
        # For root, apt would fetch as a user who may not write to this folder.
        command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root"]
        if subprocess.run([*command, PACKAGE], cwd=folder, check=False).returncode:
            sys.exit(_by_hand("apt-get could not download it (try apt-get update)"))
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True)
    return unpacked / INSIDE


def _by_hand(why: str) -> str:
    return (
        f"{why}: get the four *-ubyte.gz files of Fashion-MNIST from the Debian "
        f"package {PACKAGE} (folder /{INSIDE}), put them into {FOLDER} and run this "
        "again"
    )


if __name__ == "__main__":
    sys.exit(main())
