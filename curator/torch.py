"""A session as PyTorch's data loading knows it.

* :class:`Loader` is iterated as a ``DataLoader`` is, and yields ready batches;
* :class:`BatchSampler` goes beside one's own map-style dataset: ids only;
* :class:`IterableDataset` is for frameworks that insist on building the ``DataLoader``.

All have ``state_dict`` and ``load_state_dict``, which hold the step, not a position in
a file: 150 bytes or so, free to take at every step, and right under a loader that looks
ahead, because ``session.report`` and not fetching is what moves the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

try:
    import torch.utils.data
except ImportError as error:
    from curator.errors import MissingDependencyError

    msg = (
        "curator.torch needs torch, which is not installed: "
        "pip install 'batch-curator[torch]'"
    )
    raise MissingDependencyError(msg) from error

from curator.client import Batch, Session
from curator.errors import SessionError

__all__ = ["BatchSampler", "IterableDataset", "Loader"]


class _Stateful:
    """What the three have in common: a session, a length, and a state."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def __len__(self) -> int:
        """Returns how many batches are left.

        Raises:
            TypeError: The session is endless.
        """
        num_steps = self.session.info.num_steps
        if num_steps is None:
            msg = (
                f"session {self.session.name!r} has no length: it is endless, or its "
                "epochs are planned from losses (batch.epoch_num_steps tells each)"
            )
            raise TypeError(msg)
        return num_steps - self.session.state_dict()["step"]

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: epochs are the session's sampler's. Trainers call it."""

    def state_dict(self) -> dict[str, Any]:
        """Returns where the trainer is; see :meth:`Session.state_dict`."""
        return self.session.state_dict()

    def _go_back(self) -> None:
        """Goes to the first step that is not reported, as what was fetched is lost."""
        self.session.load_state_dict(self.session.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where the state was taken; before or while iterating."""
        self.session.load_state_dict(state)


class Loader(_Stateful):
    """Yields a session's batches as torch tensors, like a ``DataLoader``.

    Iterating again goes on where the last iteration was left.
    """

    def __init__(
        self,
        session: Session,
        *,
        columns: Sequence[str] | None = None,
        device: str | None = None,
        prefetch: int | None = None,
    ) -> None:
        super().__init__(session)
        self._arguments = {
            "columns": columns,
            "device": device,
            "prefetch": prefetch,
        }

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches."""
        return self.session.batches(format="torch", **self._arguments)  # pyright: ignore[reportArgumentType] - as typed in __init__


class BatchSampler(_Stateful, torch.utils.data.Sampler[list[int]]):
    """Yields each batch's example ids, for ``DataLoader(..., batch_sampler=...)``.

    The dataset is one's own; the pool may be virtual. Report with
    ``session.report(ids, loss=...)``, where ids are those the dataset gave back. A
    DataLoader with workers fetches ``num_workers * prefetch_factor`` batches ahead: a
    session that is scored by the learner needs ``max_ahead`` of at least that.

    Ids are all that it yields: ``session.weights(ids)`` has the weights of their batch.

    Iterating again begins with the first step that is not reported: what a loop that
    was left had fetched ahead comes again.
    """

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the ids of one batch after the other."""
        self._go_back()
        for batch in self.session.batches(columns=[]):
            yield batch.ids.tolist()


class IterableDataset(_Stateful, torch.utils.data.IterableDataset[dict[str, Any]]):
    """Yields batches as dictionaries, for ``DataLoader(dataset, batch_size=None)``.

    A dictionary holds the columns and ``example_id``, ``weight`` and ``step``.

    Iterating again begins with the first step that is not reported: what a loop that
    was left had fetched ahead comes again.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the batches.

        Raises:
            SessionError: In a DataLoader worker, of which each would get every batch.
        """
        if torch.utils.data.get_worker_info() is not None:
            msg = (
                "the service reads and prefetches already: use DataLoader(..., "
                "batch_size=None, num_workers=0)"
            )
            raise SessionError(msg)
        self._go_back()
        for batch in self.session.batches(format="torch"):
            columns = {name: batch[name] for name in batch.columns}
            yield {
                "example_id": batch.ids,
                "weight": batch.weights,
                "step": batch.step,
                **columns,
            }
