"""A folder on any file system, and files that are copied to it and back."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import fs

from curator.errors import StorageError
from curator.files import sync
from curator.pools import open_location

__all__ = ["FileGoneError", "Place", "SavedFile"]

_CHUNK = 8 << 20
_fs: Any = fs  # the module has no types


@dataclasses.dataclass(frozen=True, slots=True)
class SavedFile:
    """A file of a checkpoint.

    Attributes:
        size: Bytes.
        blake2b: Hexadecimal digest of 16 bytes.
    """

    size: int
    blake2b: str


class FileGoneError(Exception):
    """A file that was to be copied does not exist any more."""


class Place:
    """A folder on some file system."""

    def __init__(self, uri: str) -> None:
        self._system, self._root = open_location(uri)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def has(self, name: str) -> bool:
        """Whether there is a file."""
        info = self._system.get_file_info(self._path(name))
        return bool(info.type == _fs.FileType.File)

    def read_text(self, name: str) -> str:
        """Returns the text of a small file."""
        with self._system.open_input_stream(
            self._path(name), compression=None
        ) as stream:
            return bytes(stream.read()).decode()

    def write_text(self, name: str, text: str) -> None:
        """Writes a small file."""
        with self._system.open_output_stream(self._path(name), compression=None) as out:
            out.write(text.encode())

    def save(self, path: Path, name: str) -> SavedFile:
        """Copies a local file to the place.

        Raises:
            FileGoneError: It does not exist any more.
        """
        # Open files are read to the end, whatever becomes of their names.
        try:
            source = path.open("rb")
        except FileNotFoundError as error:
            raise FileGoneError from error
        digest, size = hashlib.blake2b(digest_size=16), 0
        target = self._path(name)
        with source:
            self._system.create_dir(target.rpartition("/")[0], recursive=True)
            with self._system.open_output_stream(target, compression=None) as out:
                for chunk in iter(lambda: source.read(_CHUNK), b""):
                    digest.update(chunk)
                    size += len(chunk)
                    out.write(chunk)
        return SavedFile(size, digest.hexdigest())

    def load(self, name: str, expected: SavedFile, path: Path) -> None:
        """Copies a file from the place.

        Raises:
            StorageError: It is missing, or another than expected.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.blake2b(digest_size=16), 0
        with path.open("wb") as file:
            for chunk in self._chunks(name):
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
        if SavedFile(size, digest.hexdigest()) != expected:
            msg = (
                f"the checkpoint is damaged: {name} has {size} bytes of digest "
                f"{digest.hexdigest()}; expected {expected.size} of {expected.blake2b}"
            )
            raise StorageError(msg)

    def _chunks(self, name: str) -> Iterator[bytes]:
        with self._system.open_input_stream(
            self._path(name), compression=None
        ) as stream:
            while chunk := bytes(stream.read(_CHUNK)):
                yield chunk
