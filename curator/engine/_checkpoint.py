"""Copies of a state directory, made while a server runs, and made whole again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

import pyarrow as pa

from curator import __version__
from curator.config import check_session_name
from curator.engine._place import FileGoneError, Place, SavedFile
from curator.engine._snapshots import SnapshotStore, storage_errors
from curator.errors import CuratorError, StorageError
from curator.files import sync
from curator.ledger import Ledger, copy_ledger

__all__ = ["Manifest", "SavedSession", "checkpoint", "restore"]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"

# A file goes away when a newer one takes its place: the next copy meets that one.
_TRIES = 5
_STAGING = "restoring"
# What may be in a state directory that counts as empty; a new file system has the
# latter.
_IGNORED = {_STAGING, "lost+found"}


@dataclasses.dataclass(frozen=True, slots=True)
class SavedSession:
    """Where a session is in a checkpoint.

    Attributes:
        num_defined: Steps in its ledger.
        next_step: The first that is not closed.
    """

    num_defined: int
    next_step: int


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint consists of.

    Attributes:
        format: Version of the layout.
        curator: Version of batch-curator that wrote it.
        sessions: By name.
        files: By path in the checkpoint, and in the state directory.
    """

    format: int
    curator: str
    sessions: Mapping[str, SavedSession]
    files: Mapping[str, SavedFile]

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files.values())


def checkpoint(state: Path, target: str) -> Manifest:
    """Copies the sessions of a state directory, whether or not a server uses it.

    Each session is copied as of one moment: its ledger first, then what files that
    copy needs. The manifest is written last: without it, a checkpoint is incomplete.

    Args:
        state: The state directory; nothing in it is changed.
        target: A folder, or the URI of one on any file system of pyarrow or fsspec.

    Raises:
        ConfigError: The target is no file system that is known.
        StorageError: There is no session, the target holds a checkpoint already, or
            something cannot be read or written.
    """
    folders = sorted(path.parent for path in state.glob("sessions/*/ledger.sqlite"))
    if not folders:
        msg = f"{str(state)!r} is not the state directory of any session"
        raise StorageError(msg)
    with _errors(f"the checkpoint {target!r}"):
        place = Place(target)
        if place.has(MANIFEST):
            msg = f"{target!r} holds a checkpoint already: choose another place"
            raise StorageError(msg)
        sessions: dict[str, SavedSession] = {}
        files: dict[str, SavedFile] = {}
        for folder in folders:
            sessions[folder.name], of_session = _save_session(folder, place)
            files.update(of_session)
        manifest = Manifest(FORMAT_VERSION, __version__, sessions, files)
        place.write_text(
            MANIFEST, json.dumps(dataclasses.asdict(manifest), indent=1) + "\n"
        )
    return manifest


def _save_session(
    folder: Path, place: Place
) -> tuple[SavedSession, dict[str, SavedFile]]:
    for _ in range(_TRIES):
        with (
            contextlib.suppress(FileGoneError),
            tempfile.TemporaryDirectory(prefix="curator-checkpoint-") as scratch,
        ):
            # Before the ledger: a sampler's state must not hold more than the ledger.
            plans = sorted((folder / "plans").glob("*.safetensors"))
            ledger_path = Path(scratch) / "ledger.sqlite"
            copy_ledger(folder / "ledger.sqlite", ledger_path)
            session, snapshots = _needs(ledger_path, folder / "snapshots")
            prefix = f"sessions/{folder.name}"
            copies = {
                f"{prefix}/{path.relative_to(folder).as_posix()}": place.save(
                    path, f"{prefix}/{path.relative_to(folder).as_posix()}"
                )
                for path in [*plans, *snapshots]
            }
            name = f"{prefix}/ledger.sqlite"
            copies[name] = place.save(ledger_path, name)
            for path, digest in snapshots.items():
                copied = copies[f"{prefix}/snapshots/{path.name}"]
                if copied.blake2b != digest:
                    msg = f"snapshot {str(path)!r} is damaged: its digest is another"
                    raise StorageError(msg)
            return session, copies
    msg = (
        f"session {folder.name!r}: its files were replaced {_TRIES} times while they "
        "were copied: copy to a faster place, or while it publishes less often"
    )
    raise StorageError(msg)


def _needs(ledger_path: Path, folder: Path) -> tuple[SavedSession, dict[Path, str]]:
    """Returns where a ledger is, and which snapshots it needs, with their digests."""
    with contextlib.closing(Ledger(ledger_path)) as ledger:
        session = SavedSession(ledger.num_defined(), ledger.next_step())
        known = ledger.meta()
        if "spec" not in known:  # its making was cut short
            return session, {}
        max_ahead = int(json.loads(known["spec"]).get("max_ahead", 0))
        store = SnapshotStore(ledger_path.parent / "snapshots", ledger)
        newest = store.newest(session.num_defined - 1 - max_ahead)
        return session, {
            folder / store.path(record.snapshot_step).name: record.digest
            for record in ledger.snapshots(newest or 0)
        }


def restore(source: str, state: Path) -> Manifest:
    """Makes a state directory of a checkpoint, whole or not at all.

    Args:
        source: As for :func:`checkpoint`.
        state: The state directory; it does not exist, or is empty.

    Raises:
        ConfigError: The source is no file system that is known.
        StorageError: There is no whole checkpoint, a file of it is damaged, or the
            state directory is in use.
    """
    if state.exists():
        found = {path.name for path in state.iterdir()} - _IGNORED
        if found:
            msg = (
                f"the state directory {str(state)!r} is not empty (it has "
                f"{', '.join(sorted(found)[:4])}): restore into a new one"
            )
            raise StorageError(msg)
    with _errors(f"the checkpoint {source!r}"):
        place = Place(source)
        manifest = _read_manifest(place, source)
    staging = state / _STAGING
    with storage_errors(f"the state directory {str(state)!r}"):
        shutil.rmtree(staging, ignore_errors=True)  # of a restore that was cut short
        staging.mkdir(parents=True)
    try:
        with _errors(f"the checkpoint {source!r}, or {str(state)!r}"):
            for name, file in manifest.files.items():
                place.load(name, file, staging / name)
            # One rename: there are all sessions, or none.
            (staging / "sessions").rename(state / "sessions")
            sync(state)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _read_manifest(place: Place, source: str) -> Manifest:
    if not place.has(MANIFEST):
        msg = f"{source!r} is no checkpoint, or an incomplete one: it has no {MANIFEST}"
        raise StorageError(msg)
    try:
        table = cast("dict[str, Any]", json.loads(place.read_text(MANIFEST)))
        version = int(table["format"])
        if version > FORMAT_VERSION:
            msg = (
                f"checkpoint {source!r} has format {version}, of batch-curator "
                f"{table.get('curator')}; this version reads format {FORMAT_VERSION}: "
                "install that one"
            )
            raise StorageError(msg)
        manifest = Manifest(
            version,
            str(table["curator"]),
            {name: SavedSession(**body) for name, body in table["sessions"].items()},
            {name: SavedFile(**body) for name, body in table["files"].items()},
        )
        for name in manifest.files:
            _check_name(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"the checkpoint {source!r} is damaged: {MANIFEST}: {error}"
        raise StorageError(msg) from error
    return manifest


def _check_name(name: str) -> None:
    """Raises ``ValueError`` unless a path is one that a checkpoint may write."""
    parts = PurePosixPath(name).parts
    if len(parts) < 3 or parts[0] != "sessions" or ".." in parts or "\\" in name:
        msg = f"{name!r} is no file of a session"
        raise ValueError(msg)
    check_session_name(parts[1])


@contextlib.contextmanager
def _errors(what: str) -> Generator[None]:
    try:
        yield
    except CuratorError:
        raise
    except (OSError, pa.ArrowException) as error:
        msg = f"cannot read or write {what}: {error}"
        raise StorageError(msg) from error
