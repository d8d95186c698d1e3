"""Loss, gradient norm and entropy of a classifier, off its logits.

Shapes: ``b`` rows of a micro-batch, ``C`` classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from curator.errors import ScoringError
from curator.models._head import Batch, Column, Reader, described, distinct, entropies
from curator.types import Feature

__all__ = ["ClassifierHead"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierHead:
    """Reads ``loss``, ``grad_norm`` and ``entropy``, each one float per example.

    The module returns logits ``[b, C]``, as they are or in a mapping under ``logits``.
    The softmax is taken in float32, whatever the model's dtype.

    * ``loss``: cross-entropy with the example's label;
    * ``grad_norm``: ``||softmax - onehot||_2``, the norm of the loss's gradient in the
      logits. Up to a constant it bounds that in the parameters (Katharopoulos &
      Fleuret 2018, "Not All Samples Are Created Equal", arXiv 1803.00942, section
      3.2); Paul et al. 2021, arXiv 2107.07075, call it EL2N;
    * ``entropy``: of the predicted distribution, in nats.

    Attributes:
        label: The column of the class index, in [0, C).
    """

    label: str

    @property
    def outputs(self) -> frozenset[str]:
        """What logits and a label give."""
        return frozenset({"loss", "grad_norm", "entropy"})

    @property
    def columns(self) -> tuple[str, ...]:
        """The label."""
        return (self.label,)

    @property
    def identity(self) -> tuple[str | None, ...]:
        """The kind and the label's column."""
        return ("classifier", self.label)

    def over(self, module: nn.Module, model: str) -> Reader:
        """Returns the reader of a module."""
        return functools.partial(self._read, model)

    def _read(
        self,
        model: str,
        returned: object,
        batch: Batch,
        num_rows: int,
        outputs: frozenset[str],
    ) -> Mapping[str, Feature]:
        logits = _checked_logits(returned, num_rows, model)
        labels = self._checked_labels(batch[self.label], logits.shape[1], model)
        log_probs = torch.log_softmax(logits.float(), dim=1)
        found: dict[str, Tensor] = {}
        if "loss" in outputs:
            found["loss"] = -log_probs.gather(1, labels[:, None])[:, 0]
        if "grad_norm" in outputs:
            # 1 - p of a confident model has no digits left; the others' sum has them.
            others = log_probs.exp().scatter_(1, labels[:, None], 0.0)
            own = -others.sum(dim=1, keepdim=True)
            gradient = others.scatter_(1, labels[:, None], own)
            # torch does not type its linear algebra.
            found["grad_norm"] = cast("Any", torch.linalg).vector_norm(gradient, dim=1)
        if "entropy" in outputs:
            found["entropy"] = entropies(log_probs)
        return {name: values.cpu().numpy() for name, values in found.items()}

    def _checked_labels(self, labels: Column, num_classes: int, model: str) -> Tensor:
        """Returns the labels as int64, or says what is wrong with them."""
        if (
            not isinstance(labels, Tensor)
            or labels.ndim != 1
            or labels.is_floating_point()
        ):
            msg = (
                f"model {model!r}: label column {self.label!r} is "
                f"{described(labels)}; expected one integer per example, the class "
                "index"
            )
            raise ScoringError(msg)
        labels = labels.long()
        lowest, highest = labels.aminmax()  # a tenth of what it takes to look for them
        if lowest < 0 or highest >= num_classes:
            wrong = distinct(labels[(labels < 0) | (labels >= num_classes)])
            msg = (
                f"model {model!r} has {num_classes} classes; label column "
                f"{self.label!r} has {wrong}; expected values in [0, {num_classes})"
            )
            raise ScoringError(msg)
        return labels


def _checked_logits(returned: object, num_rows: int, model: str) -> Tensor:
    logits: object = returned
    if isinstance(returned, Mapping):
        named = cast("Mapping[str, object]", returned)
        if "logits" not in named:
            msg = (
                f"model {model!r} returned a mapping of {', '.join(map(repr, named))}; "
                "logits are expected under 'logits'"
            )
            raise ScoringError(msg)
        logits = named["logits"]
    if (
        not isinstance(logits, Tensor)
        or not logits.is_floating_point()
        or logits.ndim != 2
        or logits.shape[0] != num_rows
        or logits.shape[1] == 0
    ):
        msg = (
            f"model {model!r} returned logits as {described(logits)}; expected a "
            f"floating-point tensor of shape [{num_rows}, C], as it is or in a mapping "
            "under 'logits'"
        )
        raise ScoringError(msg)
    return logits
