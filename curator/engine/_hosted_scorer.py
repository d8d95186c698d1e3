"""A scoring worker in a process of its own: built from a plan, fed with shards."""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Int64, UInt8

from curator.config import ModelSpec, PoolSpec, RaySpec
from curator.engine._scoring_worker import ScoringWorker, outputs_of
from curator.engine._weight_turns import WeightTurns
from curator.errors import ConfigError, CuratorError, PoolError, StorageError
from curator.models import Scorer, build_scorer
from curator.pools import Pool, open_pool
from curator.scores import PairShard
from curator.types import Features, PairEmbeddings

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MAX_HELD", "HostedScorer", "Logits", "ScoringPlan", "Shard", "Snapshot"]

_log = logging.getLogger(__name__)

_FOLDER = Path(tempfile.gettempdir(), f"curator-{os.getuid()}")

Logits: TypeAlias = dict[str, tuple[float, float | None]]
"""The logit scale and bias of models, by the names of their embeddings."""

MAX_HELD = 4
"""Super-batches whose embeddings a scorer keeps: that which is being selected from,
those scored ahead, and one to spare."""


@dataclasses.dataclass(frozen=True, slots=True)
class ScoringPlan:
    """What the scorers of a session are, wherever they run.

    Attributes:
        session: The session's name.
        ray: How many scorers there are, and what each takes.
        pool: Where the pool lies; None for one in the service's memory.
        pool_fingerprint: What it has to be.
        num_examples: Its size.
        models: Of each role, what the model is, and its fingerprint.
        python_path: Folders in which factories are looked for.
    """

    session: str
    ray: RaySpec
    pool: PoolSpec | None
    pool_fingerprint: str
    num_examples: int
    models: dict[str, tuple[ModelSpec, str]]
    python_path: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """What the models read of the pool."""
        reads = [model.reads.values() for model, _ in self.models.values()]
        return sorted({name for named in reads for names in named for name in names})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Candidates of one super-batch that one scorer scores.

    Attributes:
        name: For messages.
        ids: The candidates.
        needs: Names of features of models.
        rows: Their rows, where scorers cannot read the pool.
    """

    name: str
    ids: Int64[np.ndarray, " n"]
    needs: frozenset[str]
    rows: pa.RecordBatch | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """Published weights of the learner.

    Attributes:
        path: Where the service has them.
        inode: Device, inode and time of that file: it is read where it is, not copied,
            by a scorer to which all three are the same.
    """

    path: str
    inode: tuple[int, int, int]

    @classmethod
    def of(cls, path: str) -> Snapshot:
        """Returns a snapshot in a file."""
        return cls(path, _inode(path))

    @property
    def is_here(self) -> bool:
        """Whether the file is on this machine, and the same one."""
        try:
            return _inode(self.path) == self.inode
        except OSError:
            return False


def _inode(path: str) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns


class _HandedRows(threading.local):
    """The rows of the shard that a thread has, as what a scoring worker reads from."""

    def __init__(self, num_examples: int) -> None:
        self.num_examples = num_examples
        self.rows: pa.RecordBatch | None = None

    def take(
        self, ids: Int64[np.ndarray, " n"], columns: Sequence[str] | None = None
    ) -> pa.RecordBatch:
        """Returns the rows, which are those of ``ids``: all of a shard is scored."""
        if self.rows is None or self.rows.num_rows != len(ids):
            msg = f"a scorer was handed other rows than those of {len(ids)} candidates"
            raise PoolError(msg)
        # It has what is asked for; where it has nothing else, it need not be made anew.
        if columns is None or len(columns) == self.rows.num_columns:
            return self.rows
        return self.rows.select(list(columns))


class HostedScorer:
    """A :class:`ScoringWorker` that is told what to be after it has started.

    That it is built in :meth:`load` lets what goes wrong with models and pools arrive
    as the error that it is. Two threads may score: one reads its rows and makes them
    ready while the other has the device.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns = WeightTurns()
        self._pool: Pool | None = None
        self._columns: dict[str, list[str]] = {}
        self._handed = _HandedRows(0)
        self._worker = ScoringWorker(self._handed)
        self._name = secrets.token_hex(8)
        self._held: dict[tuple[str, int], dict[str, PairEmbeddings]] = {}
        self._pairs: dict[tuple[str, int], PairShard] = {}

    def load(self, plan: ScoringPlan) -> bool:
        """Builds the models, and opens the pool if it can be reached from here.

        Returns:
            Whether shards need no rows.

        Raises:
            ConfigError: A model cannot be built, or is another one here.
            SnapshotError: Its weights do not fit.
            StorageError: Its weights cannot be read.
        """
        for folder in reversed(plan.python_path):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        models = {role: _build(role, *model) for role, model in plan.models.items()}
        self._columns = {role: list(scorer.columns) for role, scorer in models.items()}
        self._pool = _reachable_pool(plan)
        self._handed = _HandedRows(plan.num_examples)
        learner = plan.models.get("learner")
        weights = None if learner is None else learner[0].weights
        self._worker = ScoringWorker(
            self._handed,
            learner=models.get("learner"),
            learner_weights=None if weights is None else Path(weights),
            reference=models.get("reference"),
        )
        return self._pool is not None

    def score(
        self,
        shard: Shard,
        snapshot: Snapshot | None,
        weights: UInt8[np.ndarray, " size"] | None,
    ) -> tuple[Features, float, dict[str, int]]:
        """Returns what :meth:`ScoringWorker.score` does.

        Args:
            shard: What to score.
            snapshot: The learner's weights; None for the configured ones.
            weights: Their bytes.

        Raises:
            CuratorError: As :meth:`ScoringWorker.score`.
        """
        self._handed.rows = self._rows(shard)
        if not outputs_of("learner", shard.needs):
            return self._worker.score(shard.ids, shard.needs, None)
        files = self._files(snapshot)

        def holds() -> bool:
            return any(map(self._worker.holds, files))

        self._turns.begin(holds, lambda: self._load(snapshot, weights))
        try:
            file = next(filter(self._worker.holds, files))
            return self._worker.score(shard.ids, shard.needs, file)
        finally:
            self._turns.end()

    def hold(
        self,
        place: tuple[str, int],
        shard: Shard,
        snapshot: Snapshot | None,
        weights: UInt8[np.ndarray, " size"] | None,
    ) -> tuple[Logits, float, dict[str, int]]:
        """Scores a shard as :meth:`score` does, and keeps the embeddings.

        Args:
            place: The super-batch, and which of its shards this is; the last few
                super-batches are kept.
            shard: What to score; nothing but embeddings.
            snapshot: The learner's weights; None for the configured ones.
            weights: Their bytes.

        Returns:
            The logit scale and bias of each model, and the account.

        Raises:
            CuratorError: As :meth:`ScoringWorker.score`.
        """
        features, seconds, num_scored = self.score(shard, snapshot, weights)
        embeddings = {
            name: value
            for name, value in features.items()
            if isinstance(value, PairEmbeddings)
        }
        with self._lock:
            self._held[place] = embeddings
            kept = list(dict.fromkeys(batch for batch, _ in self._held))[-MAX_HELD:]
            for held in [held for held in self._held if held[0] not in kept]:
                del self._held[held]
                self._pairs.pop(held, None)
        logits = {
            name: (value.logit_scale, value.logit_bias)
            for name, value in embeddings.items()
        }
        return logits, seconds, num_scored

    def pair(self, place: tuple[str, int], method: str, *arguments: Any) -> Any:
        """Returns what a method of the :class:`PairShard` at a place returns.

        ``start`` makes it.

        Raises:
            LookupError: The embeddings are not kept any more.
        """
        if method == "start":
            shard = PairShard(self._held[place], *arguments)
            self._pairs[place] = shard
            return shard.bounds()
        return getattr(self._pairs[place], method)(*arguments)

    def _files(self, snapshot: Snapshot | None) -> list[Path | None]:
        """Returns where a snapshot may have been loaded from: its file, or a copy."""
        if snapshot is None:
            return [None]
        return [Path(snapshot.path), self._copy(snapshot)]

    def _copy(self, snapshot: Snapshot) -> Path:
        # Of a name that nobody else writes, and no folder of its own: a scorer that is
        # killed, as Ray ends all of them, could not remove it.
        return _FOLDER / f"{self._name}-{Path(snapshot.path).name}"

    def _load(
        self,
        snapshot: Snapshot | None,
        weights: UInt8[np.ndarray, " size"] | None,
    ) -> None:
        if snapshot is None:
            self._worker.load(None)
        elif weights is None or snapshot.is_here:
            self._worker.load(Path(snapshot.path))
        else:
            copy = self._copy(snapshot)
            try:
                _make_folder()
                weights.tofile(copy)
                self._worker.load(copy)
            except OSError as error:
                msg = f"a scorer on node {os.uname().nodename!r} cannot write: {error}"
                raise StorageError(msg) from error
            finally:
                copy.unlink(missing_ok=True)

    def _rows(self, shard: Shard) -> pa.RecordBatch:
        if shard.rows is not None:
            return shard.rows
        if self._pool is None:
            msg = "this scorer cannot read the pool, and was handed no rows"
            raise PoolError(msg)
        columns = {
            column
            for role, columns in self._columns.items()
            if outputs_of(role, shard.needs)
            for column in columns
        }
        return self._pool.take(shard.ids, sorted(columns))


def _make_folder() -> None:
    """Makes the folder that this user's scorers share on this node.

    Raises:
        PermissionError: Others may write there, or it is another user's.
    """
    _FOLDER.mkdir(mode=0o700, exist_ok=True)
    status = _FOLDER.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        msg = f"others may write to {str(_FOLDER)!r}: remove it"
        raise PermissionError(msg)


def _build(role: str, spec: ModelSpec, fingerprint: str) -> Scorer:
    scorer = build_scorer(spec)
    if scorer.fingerprint != fingerprint:
        msg = (
            f"the {role} of factory {spec.factory!r} is another model on node "
            f"{os.uname().nodename!r} than on that of the service (fingerprint "
            f"{scorer.fingerprint[:12]}, expected {fingerprint[:12]}): give all nodes "
            f"the same code and weights ({spec.weights})"
        )
        raise ConfigError(msg)
    return scorer


def _reachable_pool(plan: ScoringPlan) -> Pool | None:
    """Returns the pool, or None where it is not here, or is another one here."""
    if plan.pool is None:
        return None
    try:
        _make_folder()
        pool = open_pool(
            plan.pool.format,
            path=plan.pool.path,
            num_examples=plan.pool.num_examples,
            cache_bytes=plan.pool.cache_bytes,
            fingerprint_cache=_FOLDER / "fingerprints.sqlite",
        )
        found = pool.fingerprint
    except (CuratorError, OSError) as error:
        _log.warning(
            "session %r: rows come through the object store, because node %s cannot "
            "read the pool: %s",
            plan.session,
            os.uname().nodename,
            error,
        )
        return None
    if found == plan.pool_fingerprint:
        return pool
    _log.warning(
        "session %r: rows come through the object store, because %s is another pool on "
        "node %s (fingerprint %s, expected %s)",
        plan.session,
        plan.pool.path,
        os.uname().nodename,
        found[:12],
        plan.pool_fingerprint[:12],
    )
    pool.close()
    return None
