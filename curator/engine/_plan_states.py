"""What a sampler has made of reported losses, kept from epoch to epoch.

A session whose epochs are planned from losses could plan them all again from what the
ledger holds. With the sampler's state of the newest epoch beside it, opening takes as
long as the reports of one epoch, and older reports need not be kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from curator.engine._snapshots import storage_errors
from curator.errors import StorageError

__all__ = ["PlanState", "PlanStates"]

# The newest, and one more: whoever opens a session goes back an epoch at most.
_KEPT = 2
_PLANNER = "planner."


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PlanState:
    """A sampler's state before it plans an epoch.

    Attributes:
        first_steps: First step of each epoch up to this one, which is the last.
        num_observed: Steps whose losses the state holds.
        arrays: What the planner says of itself.
    """

    first_steps: Int64[np.ndarray, " epochs"]
    num_observed: int
    arrays: Mapping[str, np.ndarray]

    @property
    def epoch(self) -> int:
        """The epoch that is planned next."""
        return len(self.first_steps) - 1


class PlanStates:
    """The states of one session, a file for each epoch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _files(self) -> dict[int, Path]:
        files = {int(p.stem): p for p in self._folder.glob("*.safetensors")}
        return dict(sorted(files.items()))

    def save(self, state: PlanState) -> None:
        """Writes a state, and deletes those that are older than the last but one.

        States of later epochs are not of this ledger, and deleted, too.

        Raises:
            StorageError: There is no space for it.
        """
        tensors = {
            "first_steps": state.first_steps,
            "num_observed": np.array([state.num_observed], np.int64),
            **{f"{_PLANNER}{name}": array for name, array in state.arrays.items()},
        }
        path = self._folder / f"{state.epoch:08d}.safetensors"
        part = path.with_suffix(".part")
        with storage_errors(f"the sampler's state for epoch {state.epoch}"):
            self._folder.mkdir(exist_ok=True)
            with part.open("wb") as file:
                file.write(save(tensors))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            files = self._files()
            kept = [epoch for epoch in files if epoch <= state.epoch][-_KEPT:]
            for epoch in files.keys() - kept:
                files[epoch].unlink(missing_ok=True)

    def newest(self, *, last_epoch: int | None, num_reported: int) -> PlanState | None:
        """Returns the state of the latest epoch that there is, or None.

        Args:
            last_epoch: The latest epoch that is wanted; None for any.
            num_reported: Steps that are reported: a state that holds more is not of
                this ledger, which was restored from an older copy.

        Raises:
            StorageError: A file is damaged.
        """
        for epoch, path in reversed(self._files().items()):
            if last_epoch is not None and epoch > last_epoch:
                continue
            state = _read(path)
            if state.num_observed <= num_reported:
                return state
        return None

    def kept(self, *, num_reported: int) -> list[PlanState]:
        """Returns the states that hold no more than some losses, the latest first.

        Arguments and errors as for :meth:`newest`. Another process may be at work.
        """
        states: list[PlanState] = []
        for path in reversed(self._files().values()):
            with contextlib.suppress(FileNotFoundError):  # newer ones took its place
                state = _read(path)
                if state.num_observed <= num_reported:
                    states.append(state)
        return states

    def needed_from(self) -> int:
        """Returns the first step whose losses no state holds that is kept."""
        files = self._files()
        if len(files) < _KEPT:
            return 0
        oldest: Any = safe_open(next(iter(files.values())), "np")  # it has no types
        with oldest as tensors:
            return int(tensors.get_tensor("num_observed")[0])


def _read(path: Path) -> PlanState:
    """Returns the state of a file.

    Raises:
        StorageError: It is damaged.
        FileNotFoundError: It is gone.
    """
    try:
        tensors = load(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError) as error:
        msg = (
            f"the sampler's state {str(path)!r} is damaged ({error}): delete it, and "
            "it is made again from the ledger"
        )
        raise StorageError(msg) from error
    return PlanState(
        first_steps=tensors["first_steps"],
        num_observed=int(tensors["num_observed"][0]),
        arrays={
            name.removeprefix(_PLANNER): array
            for name, array in tensors.items()
            if name.startswith(_PLANNER)
        },
    )
