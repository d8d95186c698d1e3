"""Published weights of a session: the files, and which one scores which step."""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path

from curator.errors import SnapshotError, StorageError
from curator.files import sync
from curator.ledger import Ledger, SnapshotRecord

__all__ = ["SnapshotStore", "snapshot_path", "storage_errors"]


@contextlib.contextmanager
def storage_errors(what: str) -> Generator[None]:
    """Turns an ``OSError`` of a write into a :class:`StorageError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            msg = f"no space left to write {what}: free some and repeat the call"
        else:
            msg = f"cannot write {what}: {error}"
        raise StorageError(msg) from error


def snapshot_path(folder: Path, snapshot_step: int) -> Path:
    """Returns where the weights of a snapshot lie in a session's folder of them."""
    return folder / f"{snapshot_step:012d}.safetensors"


class SnapshotStore:
    """The snapshots of one session, in a folder beside its ledger.

    A snapshot counts from the report of its ``report_step`` on: step s is scored with
    the newest one whose ``report_step`` is at most ``s - 1 - max_ahead``. That is the
    whole rule, and no clock is in it. A snapshot from before the first step (step 0)
    counts at once.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        with storage_errors(f"the folder {str(folder)!r}"):
            folder.mkdir(exist_ok=True)
        # A file without a record is an upload that a crash cut short.
        files = sorted(int(path.stem) for path in folder.glob("*.safetensors"))
        self._with_file = collections.deque(step for step in files if step in self)

    def __contains__(self, snapshot_step: int) -> bool:
        return self._ledger.snapshot(snapshot_step) is not None

    def path(self, snapshot_step: int) -> Path:
        """Returns where the weights of a snapshot lie."""
        return snapshot_path(self._folder, snapshot_step)

    @property
    def last(self) -> int:
        """The newest snapshot there is, whether or not it counts yet; -1 for none."""
        last = self._ledger.last_snapshot()
        return -1 if last is None else last.snapshot_step

    def newest(self, report_step: int) -> int | None:
        """Returns the snapshot that counts as of a report, None for the configured.

        Args:
            report_step: ``s - 1 - max_ahead`` for step s; negative before any report.
        """
        record = self._ledger.last_snapshot(report_step)
        return None if record is None else record.snapshot_step

    def receive(self, chunks: Iterable[bytes], num_bytes: int) -> tuple[Path, str]:
        """Writes an upload to a temporary file; returns it and its digest.

        Raises:
            SnapshotError: It has another size than announced.
            StorageError: There is no space for it.
        """
        path = self._folder / f"incoming-{os.getpid()}-{id(chunks):x}"
        digest, size = hashlib.blake2b(digest_size=16), 0
        try:
            with (
                storage_errors(f"a snapshot of {num_bytes} bytes"),
                path.open("wb") as f,
            ):
                for chunk in chunks:
                    size += len(chunk)
                    digest.update(chunk)
                    f.write(chunk)
                f.flush()
                os.fsync(f.fileno())
            if size != num_bytes:
                msg = f"announced a snapshot of {num_bytes} bytes, received {size}"
                raise SnapshotError(msg)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path, digest.hexdigest()

    def add(self, record: SnapshotRecord, file: Path) -> None:
        """Makes a received file the snapshot of its step: file first, record second."""
        with storage_errors(f"snapshot {record.snapshot_step}"):
            file.replace(self.path(record.snapshot_step))
            sync(self._folder)
        self._ledger.add_snapshot(record)
        self._with_file.append(record.snapshot_step)

    def discard_before(self, report_step: int) -> None:
        """Deletes the files of snapshots that no later step is scored with.

        Args:
            report_step: What the next undefined step is scored as of.
        """
        newest = self.newest(report_step)
        while newest is not None and self._with_file and self._with_file[0] < newest:
            self.path(self._with_file.popleft()).unlink(missing_ok=True)
