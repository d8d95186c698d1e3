"""The sessions of a server: opened on demand, by name, each with its own folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from curator.config import (
    Config,
    PoolSpec,
    SessionSpec,
    check_references,
    check_session_name,
    did_you_mean,
    load_extensions,
    session_to_table,
)
from curator.engine._epochs import start_epochs
from curator.engine._executor import Executor
from curator.engine._executors import Executors
from curator.engine._fork import (
    AWAITS_SNAPSHOT,
    STAGING,
    fork,
    is_fork,
    name_is_taken,
)
from curator.engine._identity import (
    check_configured,
    check_identity,
    check_pool,
    check_recorded,
    check_table,
    has_ledger,
    mismatch,
    recorded_spec,
)
from curator.engine._memory_limit import MemoryLimit
from curator.engine._plan_states import PlanStates
from curator.engine._session import SessionEngine
from curator.engine._snapshots import SnapshotStore, storage_errors
from curator.errors import (
    ConfigError,
    SessionError,
    StorageError,
    UnknownSessionError,
)
from curator.files import sync
from curator.ledger import Ledger
from curator.models import Scorer, ScoreTable
from curator.pools import Pool, open_pool
from curator.sessions import SessionInfo
from curator.store import FeatureStore

__all__ = ["Registry"]


class Registry:
    """Opens sessions, and holds the pools and models that they share.

    One process at a time owns a state directory.
    """

    def __init__(self, config: Config, pools: Mapping[str, Pool] | None = None) -> None:
        """Claims the state directory.

        Args:
            config: What to serve.
            pools: Pools that exist already, by name, beside those of ``config``.

        Raises:
            StorageError: The state directory cannot be made or written, or another
                process uses it.
        """
        load_extensions(config.server)
        self.config = config
        self._given = dict(pools or {})
        self._pools: dict[str, Pool] = {}
        self._references: dict[str, Scorer | ScoreTable] = {}
        self._engines: dict[str, SessionEngine] = {}
        self._lock = threading.RLock()
        self._closed = False
        self._state = Path(config.server.state_dir)
        self._claim = _claim(self._state)
        shutil.rmtree(self._state / STAGING, ignore_errors=True)  # a crash left it
        self._executors = Executors(config)

    def names(self) -> list[str]:
        """Returns the sessions that are configured, or exist from before."""
        folder = self._state / "sessions"
        existing = [path.parent.name for path in folder.glob("*/ledger.sqlite")]
        return sorted({*self.config.sessions, *existing})

    def check_recorded(self, name: str) -> None:
        """Raises what :meth:`open` would; models are not built, and so not compared."""
        spec = self.config.sessions[name]
        self._check(spec, name)
        folder = self._state / "sessions" / name
        if has_ledger(folder):
            check_recorded(name, spec, folder, self.pool(spec.pool).fingerprint)

    def pool(self, name: str) -> Pool:
        """Returns a pool by name, opening it the first time.

        Raises:
            ConfigError: There is no such pool.
            PoolError: It cannot be read.
        """
        with self._lock:
            if name in self._given:
                return self._given[name]
            if name not in self._pools:
                spec = self._pool_spec(name)
                self._pools[name] = open_pool(
                    spec.format,
                    path=spec.path,
                    num_examples=spec.num_examples,
                    cache_bytes=spec.cache_bytes,
                    fingerprint_cache=self._state / "fingerprints.sqlite",
                )
            return self._pools[name]

    def _pool_spec(self, name: str) -> PoolSpec:
        if name not in self.config.pools:
            msg = f"no pool {name!r}{did_you_mean(name, self.config.pools)}"
            raise ConfigError(msg)
        return self.config.pools[name]

    def open(self, name: str, spec: SessionSpec | None = None) -> SessionEngine:
        """Opens a session, or resumes it where it was.

        Args:
            name: The session.
            spec: What it is; by default what the configuration, or its own ledger,
                says under this name.

        Raises:
            UnknownSessionError: There is none, and no ``spec`` to make it.
            SessionMismatchError: It exists with another specification or model.
            PoolChangedError: The pool's data is not what it was.
            ConfigError: The specification is wrong.
            StorageError: Its folder cannot be read or written.
        """
        engine = self._engines.get(name)
        if engine is not None and spec is None:
            return engine  # without the lock, which another session's models may hold
        check_session_name(name)
        with self._lock:
            if self._closed:
                msg = "the server is shutting down"
                raise SessionError(msg)
            if spec is None:
                spec = self.config.sessions.get(name)
            engine = self._engines.get(name)
            if engine is None:
                engine = self._engines[name] = self._open(name, spec)
            elif spec is not None and spec != engine.spec:
                raise mismatch(name, engine.spec, spec)
            return engine

    def _open(self, name: str, spec: SessionSpec | None) -> SessionEngine:
        folder = self._state / "sessions" / name
        is_new = not (folder / "ledger.sqlite").exists()
        if is_new and spec is None:
            msg = f"no session {name!r}{did_you_mean(name, self.names())}"
            raise UnknownSessionError(msg)
        if is_new and spec is not None:
            check_configured(name, self.config.sessions.get(name), spec)
            self._check(spec, name)
        with storage_errors(f"the folder of session {name!r}"):
            folder.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(folder / "ledger.sqlite")
        try:
            return self._start(name, spec, folder, ledger)
        except BaseException:
            ledger.close()
            raise

    def _start(
        self, name: str, spec: SessionSpec | None, folder: Path, ledger: Ledger
    ) -> SessionEngine:
        known = ledger.meta()
        if "spec" in known:
            recorded = recorded_spec(known["spec"], folder)
            if spec is not None and spec != recorded:
                raise mismatch(name, recorded, spec)
            spec = recorded
        if spec is None:  # a ledger whose making was cut short
            msg = f"no session {name!r}{did_you_mean(name, self.names())}"
            raise UnknownSessionError(msg)
        self._check(spec, name)
        pool = self.pool(spec.pool)
        learner = self._learner(spec)
        reference = self._reference(spec)
        identity = {
            "spec": json.dumps(session_to_table(spec), sort_keys=True),
            "pool": pool.fingerprint,
            "learner": "" if learner is None else learner.fingerprint,
            "reference": "" if reference is None else reference.fingerprint,
        }
        check_identity(name, spec, known, identity)
        check_table(spec, self.config.models, pool, reference)
        if "spec" not in known:
            ledger.set_meta(identity)
        if "num_examples" not in known:  # for who looks at it without the pool
            ledger.set_meta({"num_examples": str(pool.num_examples)})
        text = json.dumps([name, identity], sort_keys=True).encode()
        epochs = start_epochs(spec, pool, ledger, PlanStates(folder / "plans"))
        limit = MemoryLimit(name, self.config.server.max_session_bytes)
        limit.take("what the sampler knows of examples", epochs.num_bytes)
        return SessionEngine(
            name,
            spec,
            fingerprint=hashlib.blake2b(text, digest_size=8).hexdigest(),
            pool=pool,
            epochs=epochs,
            executor=self._executor(name, spec, pool, learner, reference),
            ledger=ledger,
            keep_steps=self.config.server.keep_steps,
            snapshots=SnapshotStore(folder / "snapshots", ledger),
            first_snapshot=self._first_snapshot(spec, known),
            memory_limit=limit,
        )

    def _first_snapshot(
        self, spec: SessionSpec, known: Mapping[str, str]
    ) -> int | None:
        """Returns the snapshot that a session cannot start without, if any."""
        if AWAITS_SNAPSHOT in known:
            return int(known[AWAITS_SNAPSHOT])
        if not spec.needs_learner:
            return None
        return 0 if self.config.models[str(spec.learner)].weights is None else None

    def fork(
        self, name: str, new_name: str, step: int, *, forget_memory: bool = False
    ) -> SessionEngine:
        """Opens a session that is another one up to a step.

        Args:
            name: The other session.
            new_name: What the new one is called. Where it exists, it is opened, if it
                was made by the same call.
            step: The first step that it does not share, from 0 to the first that is
                not closed.
            forget_memory: Whether its policy remembers nothing of the steps before.

        Raises:
            SessionError: The step is not closed, or what it depends on is not kept.
            SessionMismatchError: There is another session under the new name.
            CuratorError: As for :meth:`open`.
        """
        check_session_name(new_name)
        source = self.open(name)
        if not 0 <= step <= source.next_step:
            msg = (
                f"cannot fork session {name!r} at step {step}: it can be forked up to "
                f"step {source.next_step}, the first that is not reported yet"
            )
            raise SessionError(msg)
        target = self._state / "sessions" / new_name
        if not is_fork(target, name, step, forget_memory=forget_memory):
            if new_name in self.config.sessions:
                raise name_is_taken(new_name)
            making = fork(
                self._state / "sessions" / name,
                source.spec,
                step,
                plans_from_losses=source.info().depends_on_losses,
                forget_memory=forget_memory,
            )
            with making as folder, self._lock:
                # Two calls at a time may have come here.
                if not is_fork(target, name, step, forget_memory=forget_memory):
                    with storage_errors(f"the folder of session {new_name!r}"):
                        folder.rename(target)
                        sync(target.parent)
        return self.open(new_name)

    def _check(self, spec: SessionSpec, name: str) -> None:
        """Checks a specification against the pools and models that exist.

        Raises:
            ConfigError: It names something that does not exist, or that does not fit.
        """
        where = f"session {name!r}"
        models = self.config.models
        check_references(spec, [*self._given, *self.config.pools], models, where)
        check_pool(spec, self.pool(spec.pool), models, where)

    def _learner(self, spec: SessionSpec) -> Scorer | None:
        """Returns the session's own copy of the learner, where the server scores."""
        if not spec.needs_learner or spec.learner is None:
            return None
        return self._executors.build(self.config.models[spec.learner])

    def _reference(self, spec: SessionSpec) -> Scorer | ScoreTable | None:
        """Returns the reference model, one for all sessions that name it.

        Raises:
            ConfigError: It is a table without an output that the policy needs.
        """
        prefix = "reference."
        needed = {need for need in spec.policy.needs if need.startswith(prefix)}
        needed |= {f"{prefix}{output}" for output in spec.reference_outputs}
        if not needed or spec.reference is None:
            return None
        model = self.config.models[spec.reference]
        # Tables by where they lie: several names may stand for one.
        key = spec.reference if model.path is None else f"table {model.path}"
        if key not in self._references:
            self._references[key] = (
                self._executors.build(model)
                if model.path is None
                else ScoreTable(model.path)
            )
        reference = self._references[key]
        for need in sorted(needed):
            if need.removeprefix(prefix) not in reference.outputs:
                msg = (
                    f"reference: the session needs {need}; model "
                    f"{spec.reference!r} gives "
                    f"{', '.join(sorted(reference.outputs)) or 'nothing'}"
                )
                raise ConfigError(msg)
        return reference

    def _executor(
        self,
        name: str,
        spec: SessionSpec,
        pool: Pool,
        learner: Scorer | None,
        reference: Scorer | ScoreTable | None,
    ) -> Executor | None:
        if learner is None and reference is None:
            return None
        cache: dict[str, FeatureStore] = {}
        if reference is not None and not isinstance(reference, ScoreTable):
            key = f"{pool.fingerprint[:16]}-{reference.fingerprint[:16]}"
            cache = {
                name: FeatureStore(
                    self._state / "features" / key / name, pool.num_examples
                )
                for name in reference.outputs
            }
        models = self.config.models
        return self._executors.make(
            name,
            spec.pool,
            pool,
            learner=None if learner is None else (models[str(spec.learner)], learner),
            reference=(
                None if reference is None else (models[str(spec.reference)], reference)
            ),
            reference_cache=cache,
        )

    def open_sessions(self) -> list[SessionInfo]:
        """Returns what the open sessions say of themselves, by name.

        Never waits for a session that is being opened.
        """
        engines = list(self._engines.values())  # without the lock, as in open()
        return sorted((engine.info() for engine in engines), key=lambda info: info.name)

    def close(self) -> None:
        """Closes every session and pool, and gives the state directory back."""
        with self._lock:
            self._closed = True
            for engine in self._engines.values():
                engine.close()
            self._executors.close()
            for pool in self._pools.values():
                pool.close()
            self._engines.clear()
            self._pools.clear()
            self._claim.close()


def _claim(state: Path):
    """Returns an open file whose lock makes this process the owner of ``state``."""
    with storage_errors(f"the state directory {str(state)!r}"):
        state.mkdir(parents=True, exist_ok=True)
        file = (state / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        msg = (
            f"the state directory {str(state)!r} is in use by another curator process: "
            "stop that one, or choose another server.state_dir"
        )
        raise StorageError(msg) from error
    return file
