"""A real file system of a few KiB, to see what a full disk does."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Generator[Path]:
    """Yields ``folder`` with a tmpfs of that size on it; skips where that is denied."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        denied = subprocess.run(mount, capture_output=True, check=False).returncode != 0
    except FileNotFoundError:
        denied = True
    if denied:
        pytest.skip("needs the right to mount a tmpfs (root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
