"""Room for large arrays: how much memory is free, and files in its place."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from curator.errors import StorageError

__all__ = ["allocate", "free_memory"]

_GROUP = Path("/sys/fs/cgroup")


def free_memory(
    meminfo: Path = Path("/proc/meminfo"), group: Path = _GROUP
) -> int | None:
    """Returns the bytes that can be allocated without swapping; None if unknown.

    Of the machine or of the container, whichever has less.

    Args:
        meminfo: What Linux says of the machine.
        group: The control group (version 2) of the container.
    """
    found = [
        int(line.split()[1]) * 1024
        for line in _lines(meminfo)
        if line.startswith("MemAvailable:")
    ]
    limit, used = _lines(group / "memory.max"), _lines(group / "memory.current")
    if limit and used and limit[0].isdigit():
        # What files are kept in is given up for the asking.
        cached = [
            int(line.split()[1])
            for line in _lines(group / "memory.stat")
            if line.startswith("inactive_file ")
        ]
        found.append(max(int(limit[0]) - int(used[0]), 0) + sum(cached))
    return min(found, default=None)


def allocate(
    shape: tuple[int, ...], scratch: Path | None
) -> Float32[np.ndarray, "..."]:
    """Returns room in memory, or in a file without a name that is mapped.

    Args:
        shape: Of the array.
        scratch: The folder of the file; None for memory.

    Raises:
        StorageError: The folder has no room for it.
    """
    if scratch is None:
        return np.empty(shape, np.float32)
    num_bytes = 4 * math.prod(shape)
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            # A full disk is an error here; later it would end the process (SIGBUS).
            os.posix_fallocate(file.fileno(), 0, num_bytes)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        msg = (
            f"cannot keep {num_bytes:,} bytes in {str(scratch)!r}: "
            f"{error.strerror or error}"
        )
        raise StorageError(msg) from error


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
