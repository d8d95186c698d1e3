"""Folders that nobody may write to, root included."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest


@contextlib.contextmanager
def read_only(path: Path) -> Generator[None]:
    """Mounts a folder on itself, read-only: root may write whatever the mode says."""
    folder = str(path)
    try:
        for command in (
            ["mount", "--bind", folder, folder],
            ["mount", "-o", "remount,ro,bind", folder],
        ):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
        pytest.skip("needs the right to mount a folder read-only (root)")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
