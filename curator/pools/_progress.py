"""How far the reading of a pool's files is."""

from __future__ import annotations

from collections.abc import Sequence

from curator.pools._files import PoolFile
from curator.progress import Progress

__all__ = ["named", "reading"]


def named(what: str, files: Sequence[PoolFile]) -> str:
    """Returns how something that is made of files is called in the log."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{what} of {files[0]}{more}"


def reading(what: str, files: Sequence[PoolFile], *, num_readings: int = 1) -> Progress:
    """Returns the progress of something that is made of files.

    Args:
        what: What is made.
        files: Which are read, at least one.
        num_readings: How often each is read.
    """
    total = num_readings * sum(file.state.size for file in files)
    return Progress(named(what, files), total)
