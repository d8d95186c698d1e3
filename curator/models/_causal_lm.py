"""Token losses of a causal language model, off its logits or its hidden states.

Position t of the output predicts token t + 1: outputs lose their last position here,
targets their first.

Shapes: ``b`` rows of a micro-batch, ``L`` tokens, ``T = L - 1`` predicted ones, ``V``
vocabulary, ``d`` width of the hidden states.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from curator.errors import ScoringError
from curator.models._head import Batch, Column, Reader, described, distinct, entropies
from curator.models._spectral import LogitGeometry, nuclear_norms, projections
from curator.types import Feature

__all__ = ["CausalLMHead"]

# Float32 logits that are made at once: 64 MiB, a few times over.
_BLOCK_ENTRIES = 1 << 24


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CausalLMHead:
    """Reads what a language model says of each example's supervised tokens.

    The module returns a mapping with ``logits`` ``[b, L, V]``, or with ``hidden``
    ``[b, L, d]``, what its output head ``module.lm_head`` (a ``torch.nn.Linear``) is
    applied to; then the logits of all positions never exist at once.

    * ``loss``, ``entropy``: means over the supervised tokens, in nats, of a softmax in
      float32;
    * ``perplexity``: the exponential of the loss;
    * ``nuclear_norm``, ``projection``: of the logits that predict them, see
      ``curator.models._spectral``;
    * ``num_tokens``: how many they are.

    An example without supervised tokens has NaN for all but ``num_tokens``.

    Attributes:
        tokens: The column of token ids, ``[b, L]``.
        mask: The column that says which tokens are supervised, ``[b, L]`` of booleans
            or of 0 and 1: where it is 1 at t, the prediction of token t from those
            before it counts. None for all of them. The first token is never predicted.
    """

    tokens: str
    mask: str | None = None

    @property
    def outputs(self) -> frozenset[str]:
        """What logits and targets give."""
        return frozenset(
            {
                "loss",
                "perplexity",
                "entropy",
                "nuclear_norm",
                "projection",
                "num_tokens",
            }
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The tokens, as targets, and the mask."""
        return (self.tokens,) if self.mask is None else (self.tokens, self.mask)

    @property
    def identity(self) -> tuple[str | None, ...]:
        """The kind and the columns."""
        return ("causal_lm", self.tokens, self.mask)

    def over(self, module: nn.Module, model: str) -> Reader:
        """Returns the reader of a module with the weights that it has now."""
        return _Weights(self, module, model).read


class _Weights:
    """A module with the weights that it has now, and what is derived from them."""

    def __init__(self, head: CausalLMHead, module: nn.Module, model: str) -> None:
        self._head = head
        self._module = module
        self._model = model

    def read(
        self, returned: object, batch: Batch, num_rows: int, outputs: frozenset[str]
    ) -> Mapping[str, Feature]:
        targets, supervised = self._targets(batch)
        shape = (num_rows, targets.shape[1] + 1)
        states, lm_head = self._states(returned, shape)
        states = states[:, :-1]
        num_entries = states.shape[2] if lm_head is None else lm_head.out_features
        self._check_targets(targets[supervised], num_entries)
        counts = supervised.sum(dim=1)
        found: dict[str, Tensor] = {"num_tokens": counts}
        if outputs & {"loss", "perplexity", "entropy"}:
            logits = (
                _as_they_are if lm_head is None else functools.partial(_of, lm_head)
            )
            found |= _means(
                states,
                logits,
                num_entries,
                targets,
                supervised,
                with_entropy="entropy" in outputs,
            )
            found["perplexity"] = found["loss"].exp()
        if "nuclear_norm" in outputs:
            found["nuclear_norm"] = (
                nuclear_norms(states, supervised)
                if lm_head is None
                else self._geometry.nuclear_norms(states, supervised)
            )
        if "projection" in outputs:
            found["projection"] = (
                projections(states, supervised)
                if lm_head is None
                else self._geometry.projections(states, supervised)
            )
        for name in found.keys() - {"num_tokens"}:
            known = (counts > 0).reshape(-1, *[1] * (found[name].ndim - 1))
            found[name] = torch.where(known, found[name], math.nan)
        return {name: found[name].float().cpu().numpy() for name in outputs}

    @functools.cached_property
    def _geometry(self) -> LogitGeometry:
        """Of the output head; made when first asked for, once per load of weights."""
        lm_head = self._lm_head()
        return LogitGeometry(lm_head.weight, cast("Tensor | None", lm_head.bias))

    def _lm_head(self) -> nn.Linear:
        lm_head = getattr(self._module, "lm_head", None)
        if not isinstance(lm_head, nn.Linear):
            msg = (
                f"model {self._model!r} returned hidden states, and its lm_head is "
                f"{described(lm_head)}; expected the torch.nn.Linear that makes logits "
                "of them, or a mapping with 'logits'"
            )
            raise ScoringError(msg)
        return lm_head

    def _states(
        self, returned: object, shape: tuple[int, int]
    ) -> tuple[Tensor, nn.Linear | None]:
        """Returns hidden states and what makes logits of them, or logits and None."""
        shown, named = described(returned), cast("Mapping[str, object]", {})
        if isinstance(returned, Mapping):
            named = cast("Mapping[str, object]", returned)
            shown = f"a mapping of {', '.join(map(str, named)) or 'nothing'}"
        names = [name for name in ("logits", "hidden") if name in named]
        if len(names) != 1:
            msg = (
                f"model {self._model!r} returned {shown}; expected a mapping with "
                "either 'logits' or 'hidden'"
            )
            raise ScoringError(msg)
        name = names[0]
        lm_head = self._lm_head() if name == "hidden" else None
        states = named[name]
        width = "V" if lm_head is None else lm_head.in_features
        if (
            not isinstance(states, Tensor)
            or not states.is_floating_point()
            or states.ndim != 3
            or states.shape[:2] != shape
            or states.shape[2] == 0
            or (lm_head is not None and states.shape[2] != width)
        ):
            msg = (
                f"model {self._model!r} returned {name} as {described(states)}; "
                f"expected a floating-point tensor of shape [{shape[0]}, {shape[1]}, "
                f"{width}]"
            )
            raise ScoringError(msg)
        return states, lm_head

    def _targets(
        self, batch: Batch
    ) -> tuple[Int64[Tensor, "b T"], Bool[Tensor, "b T"]]:
        """Returns which tokens are predicted, and which of those count."""
        tokens = self._integers(batch[self._head.tokens], self._head.tokens)
        targets = tokens[:, 1:]
        if self._head.mask is None:
            return targets, torch.ones_like(targets, dtype=torch.bool)
        mask = self._integers(batch[self._head.mask], self._head.mask)
        if mask.shape != tokens.shape:
            msg = (
                f"model {self._model!r}: column {self._head.mask!r} is "
                f"{described(mask)} and {self._head.tokens!r} is {described(tokens)}; "
                "expected one value of the mask per token"
            )
            raise ScoringError(msg)
        other = distinct(mask[(mask != 0) & (mask != 1)])
        if other:
            msg = (
                f"model {self._model!r}: column {self._head.mask!r} has "
                f"{other}; expected 1 for tokens that are supervised, else 0"
            )
            raise ScoringError(msg)
        return targets, mask[:, 1:].bool()

    def _integers(self, column: Column, name: str) -> Tensor:
        if (
            not isinstance(column, Tensor)
            or column.ndim != 2
            or column.is_floating_point()
        ):
            msg = (
                f"model {self._model!r}: column {name!r} is {described(column)}; "
                "expected integers [b, L]: a fixed-size list per example, padded to "
                "one length"
            )
            raise ScoringError(msg)
        return column.long()

    def _check_targets(self, targets: Tensor, num_entries: int) -> None:
        wrong = distinct(targets[(targets < 0) | (targets >= num_entries)])
        if wrong:
            msg = (
                f"model {self._model!r} has a vocabulary of {num_entries}; column "
                f"{self._head.tokens!r} has the supervised tokens {wrong}; "
                f"expected values in [0, {num_entries})"
            )
            raise ScoringError(msg)


def _as_they_are(logits: Tensor) -> Tensor:
    return logits


def _of(lm_head: nn.Linear, hidden: Tensor) -> Tensor:
    # Under autocast a last norm gives float32 to a head in half precision.
    logits: Tensor = lm_head(hidden.to(lm_head.weight.dtype))
    return logits


def _means(
    states: Float[Tensor, "b T width"],
    logits_of: Callable[[Tensor], Tensor],
    num_entries: int,
    targets: Int64[Tensor, "b T"],
    supervised: Bool[Tensor, "b T"],
    *,
    with_entropy: bool,
) -> dict[str, Tensor]:
    """Returns the mean loss and perhaps entropy, block by block of positions.

    Blocks are cut by shape alone, and a block without supervised positions is left
    out: neither changes an example's values by what the others supervise.
    """
    num_rows, num_positions = targets.shape
    losses = torch.zeros(targets.shape, device=targets.device)
    values = {"loss": losses}
    if with_entropy:
        values["entropy"] = torch.zeros_like(losses)
    indices = torch.where(supervised, targets, 0)
    is_wanted = supervised.any(dim=0).cpu().numpy()
    size = max(1, _BLOCK_ENTRIES // (num_rows * num_entries))
    for start in range(0, num_positions, size):
        block = slice(start, start + size)
        if not is_wanted[block].any():
            continue
        log_probs = torch.log_softmax(logits_of(states[:, block]).float(), dim=2)
        own = log_probs.gather(2, indices[:, block, None])
        losses[:, block] = -own[:, :, 0]
        if with_entropy:
            values["entropy"][:, block] = entropies(log_probs)
    counts = supervised.sum(dim=1)
    return {
        name: torch.where(supervised, each, 0.0).double().sum(dim=1) / counts
        for name, each in values.items()
    }
