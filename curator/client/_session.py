"""A session in the hands of a trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from curator.client._arguments import check_columns, check_whole
from curator.client._arrays import to_features, to_ids, to_losses, warn_of_losses
from curator.client._batch import Batch, Format, check_format
from curator.client._forks import Home, elsewhere
from curator.client._prefetch import FEWEST_AHEAD, Prefetcher
from curator.client._progress import Progress, warn_of_passed
from curator.client._state import read_state, restored_error, write_state
from curator.client._transport import StreamRequest, Transport
from curator.errors import FeatureError, SessionError
from curator.sessions import SessionInfo, rank_slice
from curator.types import PairEmbeddings

__all__ = ["Session"]


class Session:
    """One rank of one training run: iterate batches, publish, report.

    Not thread-safe: one trainer loop uses it.

    Attributes:
        info: What the session was when it was opened.
        rank: This trainer process.
        world_size: How many there are.
    """

    def __init__(
        self, transport: Transport, info: SessionInfo, rank: int, world_size: int
    ) -> None:
        self._rows = rank_slice(info.spec.batch_size, rank, world_size)
        self._reached = transport
        self.info = info
        self.rank = rank
        self.world_size = world_size
        self._progress = Progress(
            info,
            # The other ranks wait on the server for what rank 0 publishes.
            publishes=rank == 0 and info.needs_learner,
        )
        self._home = Home()
        self._prefetcher: Prefetcher | None = None
        self._iterator: object = None
        self._stall_seconds = 0.0

    @property
    def _transport(self) -> Transport:
        self._home.check()
        return self._reached

    @property
    def name(self) -> str:
        """The session's name."""
        return self.info.name

    @property
    def stall_seconds(self) -> float:
        """How long the trainer has waited for batches."""
        current = 0.0 if self._prefetcher is None else self._prefetcher.stall_seconds
        return self._stall_seconds + current

    def describe(self) -> SessionInfo:
        """Returns where the session is now, and what selection has cost."""
        return self._transport.describe(self.name)

    # --- batches -----------------------------------------------------------------

    def batches(
        self,
        *,
        columns: Sequence[str] | None = None,
        format: Format = "numpy",
        device: str | None = None,
        prefetch: int | None = None,
    ) -> Iterator[Batch]:
        """Yields this rank's batches in step order, from where the session is.

        A new iterator goes on where the last one was left; the last one ends.

        Args:
            columns: What to receive; the session's columns by default, ``[]`` for ids
                and weights only.
            format: What arrays are: ``numpy`` or ``torch``.
            device: Where torch tensors go.
            prefetch: How many batches are received ahead; by default as many as 32 MiB
                hold, from 2 to 32.

        Raises:
            SessionError: The session's features come from the trainer.
            StepNotReportedError: The next step depends on a report, or a snapshot,
                that this trainer has not sent.
            CuratorError: Whatever kept the step from being defined.
        """
        if self.info.spec.features == "trainer":
            msg = (
                f"session {self.name!r} waits for features from the trainer: iterate "
                "session.super_batches() and call session.select() on each"
            )
            raise SessionError(msg)
        yield from self._iterate(columns, format, device, prefetch, False)

    def super_batches(
        self,
        *,
        columns: Sequence[str] | None = None,
        format: Format = "numpy",
        device: str | None = None,
        prefetch: int | None = None,
    ) -> Iterator[Batch]:
        """Yields the candidates of each step, for :meth:`select`.

        For sessions with ``features = "trainer"``. Arguments as for :meth:`batches`.
        """
        if self.info.spec.features != "trainer" or self.world_size != 1:
            msg = (
                "super_batches() and select() are for sessions with features = "
                "'trainer' and a single rank; this one has features = "
                f"{self.info.spec.features!r} and world_size {self.world_size}"
            )
            raise FeatureError(msg)
        yield from self._iterate(columns, format, device, prefetch, True)

    def _iterate(
        self,
        columns: Sequence[str] | None,
        format_: Format,
        device: str | None,
        prefetch: int | None,
        super_batches: bool,
    ) -> Iterator[Batch]:
        check_format(format_, device)
        check_columns(columns)
        if prefetch is not None:
            check_whole("prefetch", prefetch, 1)
        self.close()
        iterator = self._iterator = object()
        try:
            while self._iterator is iterator:
                self._home.check()
                self._progress.check_next()
                # load_state_dict() ends the stream; the iterator goes on from there.
                if self._prefetcher is None:
                    request = StreamRequest(
                        session=self.name,
                        rank=self.rank,
                        world_size=self.world_size,
                        from_step=self._progress.next_step,
                        columns=columns,
                        super_batches=super_batches,
                        credits=prefetch or FEWEST_AHEAD,
                    )
                    self._prefetcher = Prefetcher(
                        self._transport.stream(request), widen=prefetch is None
                    )
                delivery = next(self._prefetcher, None)
                if delivery is None:
                    return
                self._progress.arrive(delivery)
                if not super_batches:
                    self._progress.hand_out(delivery)
                yield Batch(delivery, format_, device)
        finally:
            if self._iterator is iterator:
                self.close()

    def select(
        self,
        candidates: Batch,
        *,
        learner: PairEmbeddings | Mapping[str, Any] | Any = None,
        reference: PairEmbeddings | Mapping[str, Any] | Any = None,
    ) -> Batch:
        """Returns the sub-batch to train on, given features of a super-batch.

        Args:
            candidates: A batch of :meth:`super_batches`.
            learner: What the learner says of the candidates: ``PairEmbeddings``, one
                loss per candidate, or a mapping of outputs by name (``loss``,
                ``grad_norm``, ``projection`` ...) with a number or a row for each.
            reference: What the reference says; left out where it says nothing, or the
                server computes it.

        Raises:
            FeatureError: The features do not fit the policy or the super-batch.
            FeedbackError: Losses are not one number for each candidate.
        """
        features = {
            **to_features("learner", learner, len(candidates)),
            **to_features("reference", reference, len(candidates)),
        }
        source = candidates.delivery
        chosen = self._transport.select(self.name, source.step, source.ids, features)
        if source.rows is not None:
            position = {int(id_): i for i, id_ in enumerate(source.ids)}
            taken = [position[int(id_)] for id_ in chosen.ids]
            chosen = chosen.with_rows(source.rows.take(taken))
        self._progress.hand_out(chosen)
        return Batch(chosen, candidates.format, candidates.device)

    def weights(self, ids: Any) -> Any:
        """Returns the weights of a batch of which only the ids are at hand.

        As a DataLoader over one's own dataset has them. Before the batch is reported.

        Args:
            ids: The example ids of a batch that was handed out, in its order.

        Returns:
            Loss multipliers, float32: a tensor where ``ids`` is one, on its device.

        Raises:
            FeedbackError: The ids are of no batch that waits for a report.
        """
        _, found, weights = self._progress.find(to_ids(ids))
        weights = np.ones(len(found), np.float32) if weights is None else weights
        if not hasattr(ids, "new_tensor"):
            return weights.copy()
        import torch

        return torch.tensor(weights, device=ids.device)

    # --- feedback ----------------------------------------------------------------

    def report(self, batch: Batch | Any, loss: Any = None) -> None:
        """Reports that a batch has been trained on; closes the step.

        Call it once per step, after :meth:`publish`. It may be repeated.

        Args:
            batch: The batch, or the example ids of one that was handed out (a
                DataLoader over one's own dataset knows only those).
            loss: Un-reduced, un-weighted loss of each example, in the batch's order;
                left out where there is none. Those that are not finite are set aside
                (the example is as if its loss had not been reported), counted in
                ``describe().cost`` and logged.

        Raises:
            FeedbackError: Ids that are not of a batch that was handed out; losses of
                another length, or reduced already. The step stays open.
            SessionMismatchError: The service has lost reports of before: it was
                restored from an older checkpoint.
        """
        step, ids = self._step_of(batch)
        losses = None if loss is None else to_losses(loss, len(ids), step)
        if losses is not None:
            warn_of_losses(losses, ids, self.name, step)
        missing = self._transport.report(
            self.name, step, self.rank, self.world_size, ids, losses
        )
        if missing is not None and missing < self._progress.unreported:
            passed = range(missing, self._progress.unreported)
            if self._progress.reports:
                why = f"this trainer has reported step {missing}"
                raise restored_error(self.name, why, missing)
            # It went by fetches so far, and goes by reports from here on.
            warn_of_passed(passed, self.name)
            self._transport.skip(self.name, passed.start, passed.stop)
        self._progress.report(step)

    def ack(self, batch: Batch | Any) -> None:
        """Reports that a batch has been trained on, and says nothing of its losses.

        What :meth:`report` does where there is no loss.
        """
        self.report(batch)

    def skip(self, num_steps: int) -> range:
        """Passes over the next steps, as after a loss spike.

        The first of them is the first step that is not reported: a batch in hand that
        is not reported is among them, and is not to be trained on. After
        :meth:`load_state_dict` it is the state's, so that going back before a spike and
        passing over it is two calls. Skipped steps leave no losses and no policy
        remembers them; what was reported before stays as it is. The iterator goes on
        after them. All ranks skip the same steps.

        Args:
            num_steps: How many steps.

        Returns:
            The steps that are skipped.

        Raises:
            SessionError: The session ends before.
            ValueError: ``num_steps`` is not positive.
        """
        check_whole("num_steps", num_steps, 1)
        start = self._progress.first_to_skip
        skipped = range(start, start + num_steps)
        self._transport.skip(self.name, skipped.start, skipped.stop)
        self._end_stream()  # what was received ahead is of these steps
        self._progress.skip(skipped)
        return skipped

    def _step_of(self, batch: Batch | Any) -> tuple[int, Int64[np.ndarray, " n"]]:
        if isinstance(batch, Batch):
            return batch.step, batch.delivery.ids
        return self._progress.find(to_ids(batch))[:2]

    def publish(self, model: Any) -> bool:
        """Publishes the learner's weights, if the session asks for them now.

        Call it after each optimizer step, before :meth:`report`; it does nothing
        where the session needs no learner, the step is none of ``publish_every``, or
        this is not rank 0.

        Args:
            model: A torch module, or a mapping of names to tensors or arrays.

        Returns:
            Whether a snapshot was recorded.

        Raises:
            SnapshotError: The weights do not fit the learner.
        """
        if self.rank != 0 or not self.info.needs_learner:
            return False
        # The batch in hand is the first that is not reported; training on it is the
        # step that these weights come from.
        report_step = self._progress.unreported
        snapshot_step = report_step + (report_step < self._progress.next_step)
        initial = self._progress.needs_initial_snapshot
        is_asked = snapshot_step and not snapshot_step % self.info.spec.publish_every
        if not initial and not is_asked:
            return False
        from curator.models import weights_to_bytes

        is_new = self._transport.publish(
            self.name, snapshot_step, report_step, weights_to_bytes(model)
        )
        self._progress.publish(snapshot_step)
        return is_new

    def state_dict(self) -> dict[str, Any]:
        """Returns where the trainer is: small, JSON-able, and free.

        The next step is the first that is not reported; batches fetched ahead do not
        count. For a trainer that never reports it is the first that was not handed
        out.
        """
        return write_state(self.name, self.info.fingerprint, self._progress.step)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to where :meth:`state_dict` was taken; before or while iterating.

        The batches from there on are the ones that were defined then.

        Raises:
            SessionMismatchError: The state is not of this session, or is ahead of it,
                because the service was restored from an older checkpoint.
        """
        step = read_state(state, self.name, self.info.fingerprint)
        info = self.describe()
        # One rank of several may be ahead of the others, and who never reports of all.
        is_told = self.world_size == 1 and (
            info.next_step > 0 or info.spec.depends_on_reports or info.depends_on_losses
        )
        known = info.next_step if is_told else max(info.num_defined, info.next_step)
        if step > known:
            why = f"the state's next step is {step}"
            raise restored_error(self.name, why, info.next_step)
        self._end_stream()
        self._progress.go_to(step)

    def close(self) -> None:
        """Ends the iterator, if there is one. The session may be iterated again."""
        if self._home.is_here:  # what was forked must not end its parent's stream
            self._iterator = None
            self._end_stream()

    def _end_stream(self) -> None:
        if self._prefetcher is not None:
            prefetcher, self._prefetcher = self._prefetcher, None
            self._stall_seconds += prefetcher.stall_seconds
            prefetcher.close()

    def __enter__(self) -> Session:
        """Returns the session."""
        return self

    def __reduce__(self) -> str:
        raise elsewhere()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Session({self.name!r}, rank={self.rank}, world_size={self.world_size}, "
            f"next_step={self._progress.next_step})"
        )
