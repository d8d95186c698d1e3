"""A session that is another one up to a step, and goes its own way from there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from curator.config import SessionSpec
from curator.engine._plan_states import PlanStates
from curator.engine._snapshots import snapshot_path, storage_errors
from curator.errors import SessionError, SessionMismatchError
from curator.files import sync
from curator.ledger import Ledger, fork_ledger, is_skipped
from curator.policies import RememberingPolicy

__all__ = ["AWAITS_SNAPSHOT", "STAGING", "fork", "is_fork", "name_is_taken"]

STAGING = "forking"  # beside the sessions: what a crash leaves there is no session
AWAITS_SNAPSHOT = "awaits_snapshot"


def is_fork(folder: Path, source: str, step: int, *, forget_memory: bool) -> bool:
    """Whether a session was made by such a call of :func:`fork`.

    Args:
        folder: Its folder, if it exists.
        source: The name of the session that was forked.
        step: As for :func:`fork`.
        forget_memory: As for :func:`fork`.

    Raises:
        SessionMismatchError: There is another session.
    """
    path = folder / "ledger.sqlite"
    if not path.exists():
        return False
    with contextlib.closing(Ledger(path, read_only=True)) as ledger:
        known = ledger.meta()
    if _facts(source, step, forget_memory).items() <= known.items():
        return True
    raise name_is_taken(folder.name)


def name_is_taken(name: str) -> SessionMismatchError:
    """Returns the error of a fork under the name of another session."""
    msg = f"there is another session {name!r}: fork under another name"
    return SessionMismatchError(msg)


def _facts(source: str, step: int, forget_memory: bool) -> dict[str, str]:
    return {
        "forked_from": source,
        "forked_at": str(step),
        "forgot_memory": str(int(forget_memory)),
    }


@contextlib.contextmanager
def fork(
    source: Path,
    spec: SessionSpec,
    step: int,
    *,
    plans_from_losses: bool,
    forget_memory: bool,
) -> Generator[Path]:
    """Makes the folder of a session that has trained on another one's first steps.

    Where the weights that the next step would be scored with are not kept any more, it
    waits for a snapshot, as a session does whose learner has no weights.

    Args:
        source: The other session's folder; its server may be at work.
        spec: What both are.
        step: The first step that the new one does not share; all before are closed.
        plans_from_losses: Whether its epochs are planned from reported losses.
        forget_memory: Whether the policy remembers nothing of the steps before.

    Yields:
        The folder, to be renamed; deleted afterwards where it is still there.

    Raises:
        SessionError: What the step depends on is not kept any more.
        StorageError: Something cannot be read or written.
    """
    staging = source.parent.parent / STAGING
    with storage_errors(f"the folder {str(staging)!r}"):
        staging.mkdir(exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=staging))
    try:
        path = folder / "ledger.sqlite"
        # States first: they are not to hold more losses than the ledger has.
        states = PlanStates(source / "plans").kept(num_reported=step)
        facts = _facts(source.name, step, forget_memory)
        fork_ledger(source / "ledger.sqlite", path, step, facts)
        with contextlib.closing(Ledger(path)) as ledger:
            first = ledger.first_step()
            if 0 < step <= first:
                msg = (
                    f"cannot fork session {source.name!r} at step {step}: steps before "
                    f"{first} are no longer kept (server.keep_steps)"
                )
                raise SessionError(msg)
            is_planned = any(
                state.first_steps[-1] <= step and state.num_observed >= first
                for state in states
            )
            if plans_from_losses and first > 0 and not is_planned:
                msg = (
                    f"cannot fork session {source.name!r} at step {step}: the losses "
                    "that its epoch was planned from are no longer kept "
                    "(server.keep_steps), nor is what the sampler made of them"
                )
                raise SessionError(msg)
            _take_memory(source.name, ledger, spec, step, forget=forget_memory)
            _take_snapshots(source / "snapshots", folder / "snapshots", ledger, spec)
        for state in reversed(states):
            PlanStates(folder / "plans").save(state)
        sync(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _take_memory(
    name: str, ledger: Ledger, spec: SessionSpec, step: int, *, forget: bool
) -> None:
    """Checks that all of it is there that the policy may ask for, or drops it."""
    if not isinstance(spec.policy, RememberingPolicy):
        return
    if forget:
        ledger.forget_memory()
        return
    skips = ledger.skips()
    shown = [
        rows
        for at, rows in ledger.memory()
        if at < step - spec.max_ahead and not is_skipped(skips, at)
    ]
    if ledger.memory_from() and sum(map(len, shown)) < spec.policy.memory_rows:
        msg = (
            f"cannot fork session {name!r} at step {step}: what its policy remembered "
            "then is no longer kept. Fork at a later step, restore a checkpoint of "
            "the service from that time, or fork with forget_memory=True: the policy "
            "then remembers nothing, as at step 0"
        )
        raise SessionError(msg)


def _take_snapshots(
    source: Path, target: Path, ledger: Ledger, spec: SessionSpec
) -> None:
    """Links the weights that steps from here on are scored with; they never change."""
    step = ledger.next_step()
    needed = ledger.last_snapshot(step - 1 - spec.max_ahead)
    if needed is None:
        return  # the configured weights
    with storage_errors(f"the folder {str(target)!r}"):
        target.mkdir()
        try:
            for record in ledger.snapshots(needed.snapshot_step):
                _link(
                    snapshot_path(source, record.snapshot_step),
                    snapshot_path(target, record.snapshot_step),
                )
        except FileNotFoundError:
            shutil.rmtree(target)
            ledger.discard_snapshots(step)
            ledger.set_meta({AWAITS_SNAPSHOT: str(step)})


def _link(file: Path, link: Path) -> None:
    try:
        os.link(file, link)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        shutil.copyfile(file, link)
