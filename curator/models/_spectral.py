"""Nuclear norms and sketches of logits, from hidden states, without the logits.

With an output head ``Z = H W^T + 1 b^T`` the bias is one more column of W and one more
entry, 1, of each hidden state; centring the logits of each position is subtracting the
mean over the vocabulary from W and b. After that ``Z = H W^T`` and

* the singular values of Z are the roots of the eigenvalues of ``H (W^T W) H^T``, and
  ``W^T W`` does not depend on the example;
* a sketch ``P Z S^T`` of Z is ``(P H) (S W)^T``, and ``S W`` does not either.

Both are exact. Heads that do more (a scale, a tanh) change Z: pass the scaled weight,
or the logits.

Everything is accumulated in float64, on a device that has it: the root turns a rounding
error of 1e-7 in an eigenvalue into 3e-4 of the largest singular value, once for each
direction that the hidden states do not have. An example is computed by itself, from its
supervised positions alone, so neither padding nor its neighbours change it.

Shapes: ``b`` examples, ``L`` positions, ``n`` supervised positions of one example,
``V`` vocabulary, ``d`` width of the hidden states, ``w`` that width with the bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from curator.rng import generator

__all__ = ["LogitGeometry", "nuclear_norms", "projections"]

# Entries of a float64 block of the head or the logits: 32 MiB.
_BLOCK_ENTRIES = 1 << 22


class LogitGeometry:
    """What the output head makes of hidden states: Z = H W^T + 1 b^T, never formed.

    Holds ``W^T W`` and the sketch of W, not W: changing the weight afterwards changes
    nothing here. Making one costs ``2 V d (d + columns)`` operations, once per
    snapshot.
    """

    def __init__(
        self,
        weight: Float[Tensor, "V d"],
        bias: Float[Tensor, " V"] | None,
        *,
        seed: int = 0,
        rows: int = 8,
        columns: int = 128,
        center_rows: bool = False,
    ) -> None:
        """Goes through the head once, in blocks of the vocabulary.

        Args:
            weight: W, on the device and in the dtype of the model.
            bias: b; None for a head without one.
            seed: Of the sketch; distances mean something only between sketches with
                the same seed, rows and columns.
            rows: Segments that the positions are pooled into.
            columns: Coordinates that are kept of the transformed vocabulary.
            center_rows: Subtract the mean logit of each position, which the softmax
                does not see.

        Raises:
            ValueError: ``rows`` or ``columns`` is below 1.
        """
        self._rows = rows
        self._width = weight.shape[1]
        self._has_bias = bias is not None
        num_entries = len(weight)
        sketch = _VocabularySketch(num_entries, rows, columns, seed)

        def head(start: int, stop: int) -> Tensor:
            block = weight[start:stop].detach().double()
            if bias is None:
                return block
            return torch.cat([block, bias[start:stop, None].detach().double()], dim=1)

        width = self._width + self._has_bias
        blocks = list(_blocks(num_entries, max(width, columns)))
        mean = torch.zeros(width, dtype=torch.float64, device=weight.device)
        if center_rows:
            for start, stop in blocks:
                mean += head(start, stop).sum(0) / num_entries
        self._gram = mean.new_zeros(width, width)
        self._sketch = mean.new_zeros(columns, width)
        for start, stop in blocks:
            block = head(start, stop) - mean
            self._gram += block.T @ block
            self._sketch += sketch.block(start, stop, weight.device) @ block

    def nuclear_norms(
        self, hidden: Float[Tensor, "b L d"], mask: Bool[Tensor, "b L"]
    ) -> Float64[Tensor, " b"]:
        """Returns the sum of the singular values of each example's logits.

        Costs ``2 n d^2 + 2 n^2 d`` operations and the eigenvalues of an n x n matrix,
        or of a w x w one where there are more positions than that.

        Args:
            hidden: What the head is applied to, in any float dtype.
            mask: Which positions are supervised; no others are read.

        Returns:
            0 for an example without supervised positions, NaN for one with a hidden
            state that is not finite.

        Raises:
            ValueError: The hidden states are not as wide as the head.
        """
        norms = torch.zeros(len(hidden), dtype=torch.float64, device=hidden.device)
        for index, states in enumerate(self._states(hidden, mask)):
            # The triangular factor has the same singular values behind it, and is
            # smaller than states that outnumber their dimensions.
            small = states if len(states) <= states.shape[1] else _triangle(states)
            norms[index] = _sum_of_roots(small @ self._gram @ small.T)
        return norms

    def projections(
        self, hidden: Float[Tensor, "b L d"], mask: Bool[Tensor, "b L"]
    ) -> Float32[Tensor, "b D"]:
        """Returns a sketch of each example's logits, ``rows * columns`` wide.

        See :func:`projections` for what it preserves.

        Raises:
            ValueError: The hidden states are not as wide as the head.
        """
        sketches = [
            (_pooling(len(states), self._rows, states.device) @ states) @ self._sketch.T
            for states in self._states(hidden, mask)
        ]
        return torch.stack(sketches).flatten(1).float()

    def _states(self, hidden: Tensor, mask: Tensor) -> Iterator[Tensor]:
        """Yields each example's supervised hidden states, with the bias's 1."""
        if hidden.shape[-1] != self._width:
            msg = (
                f"hidden states must be as wide as the output head, {self._width}; "
                f"got {hidden.shape[-1]}"
            )
            raise ValueError(msg)
        for example, supervised in zip(hidden, mask, strict=True):
            states = example[supervised].detach().double()
            if self._has_bias:
                states = torch.cat([states, states.new_ones(len(states), 1)], dim=1)
            yield states


def nuclear_norms(
    logits: Float[Tensor, "b L V"],
    mask: Bool[Tensor, "b L"],
    *,
    center_rows: bool = False,
) -> Float64[Tensor, " b"]:
    """Returns the sum of the singular values of each example's logits.

    As :meth:`LogitGeometry.nuclear_norms`, for heads that are not linear. Costs
    ``2 n^2 V`` operations.
    """
    norms = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    for index, (matrix, means) in enumerate(_rows_and_means(logits, mask, center_rows)):
        if len(matrix) > matrix.shape[1]:
            matrix, means = matrix.T, means.T
        side, length = matrix.shape
        gram = norms.new_zeros(side, side)
        for start, stop in _blocks(length, side):
            block = matrix[:, start:stop].double() - means[:, start:stop]
            gram += block @ block.T
        norms[index] = _sum_of_roots(gram)
    return norms


def projections(
    logits: Float[Tensor, "b L V"],
    mask: Bool[Tensor, "b L"],
    *,
    seed: int = 0,
    rows: int = 8,
    columns: int = 128,
    center_rows: bool = False,
) -> Float32[Tensor, "b D"]:
    """Returns a sketch of each example's logits, ``rows * columns`` wide.

    The sketch is ``P Z S^T``, flattened. Position t of n supervised ones belongs to
    segment ``floor(t * rows / n)``, and P sums each segment over the root of its size
    (its mean, times that root): P has orthonormal rows, and a zero row for each empty
    segment, which there are only where n < rows. S flips signs at random, applies an
    orthonormal discrete cosine transform over the vocabulary, keeps ``columns`` of its
    V coordinates (without replacement) and multiplies by ``sqrt(V / columns)``; a
    vocabulary of fewer than ``columns`` entries is padded with zeros to that many.

    So the expectation of ``||q||^2`` over seeds is exactly ``||P Z||_F^2``. This is at
    most ``||Z||_F^2``, and equal to it where n <= rows or logits are constant within
    each segment. For two examples of the same length the expectation of
    ``||q - q'||^2`` is ``||P (Z - Z')||_F^2``; for others, segments are compared by
    their place in the example.

    Source: the subsampled randomised transform of Zou et al. 2025, arXiv 2510.16882,
    with another left side: theirs needs all examples padded to one length.

    Raises:
        ValueError: ``rows`` or ``columns`` is below 1.
    """
    num_entries = logits.shape[2]
    sketch = _VocabularySketch(num_entries, rows, columns, seed)
    examples = list(_rows_and_means(logits, mask, center_rows))
    pools = [_pooling(len(matrix), rows, logits.device) for matrix, _ in examples]
    shape = (len(logits), rows, columns)
    sketches = torch.zeros(shape, dtype=torch.float64, device=logits.device)
    longest = max([columns, *(len(matrix) for matrix, _ in examples)])
    for start, stop in _blocks(num_entries, longest):
        transform = sketch.block(start, stop, logits.device)
        for index, (matrix, means) in enumerate(examples):
            block = matrix[:, start:stop].double() - means[:, start:stop]
            sketches[index] += pools[index] @ block @ transform.T
    return sketches.flatten(1).float()


class _VocabularySketch:
    """Some coordinates of a randomised cosine transform, as rows of a matrix.

    So few of V coordinates are wanted that a matrix of cosines, made block by block, is
    as good as a fast transform, and the same blocks serve heads and logits.
    """

    def __init__(self, num_entries: int, rows: int, columns: int, seed: int) -> None:
        if rows < 1 or columns < 1:
            msg = f"rows and columns must be at least 1; got {rows} and {columns}"
            raise ValueError(msg)
        self._num_points = max(num_entries, columns)
        # Raw bits of a counter generator, and no distribution of numpy's, which may
        # change between versions: every scorer must draw the same sketch.
        bits = generator(seed, "sketch.signs").bit_generator.random_raw(num_entries)
        self._signs = (bits & np.uint64(1)).astype(np.float64) * 2.0 - 1.0
        order = generator(seed, "sketch.coordinates").bit_generator.random_raw(
            self._num_points
        )
        self._coordinates = np.sort(np.argsort(order, kind="stable")[:columns])

    def block(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Returns the columns of S for some entries of the vocabulary, in float64."""
        entries = torch.arange(start, stop, device=device)
        coordinates = torch.as_tensor(self._coordinates, device=device)
        signs = torch.as_tensor(self._signs[start:stop], device=device)
        # Reduced to one period as integers: as a float the angle would lose digits.
        period = 4 * self._num_points
        phases = torch.outer(coordinates, 2 * entries + 1) % period
        cosines = torch.cos(phases.double() * (2.0 * math.pi / period))
        # sqrt(points / columns), times the transform's own sqrt(2 / points).
        cosines *= math.sqrt(2.0 / len(coordinates))
        cosines[coordinates == 0] *= math.sqrt(0.5)
        return cosines * signs


def _rows_and_means(
    logits: Tensor, mask: Tensor, center_rows: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each example's supervised logits, and what to subtract from them."""
    for example, supervised in zip(logits, mask, strict=True):
        matrix = example[supervised].detach()
        num_positions, num_entries = matrix.shape
        means = matrix.new_zeros(num_positions, 1, dtype=torch.float64)
        if center_rows:
            for start, stop in _blocks(num_entries, max(num_positions, 1)):
                block = matrix[:, start:stop].double()
                means += block.sum(1, keepdim=True) / num_entries
        yield matrix, means.expand(num_positions, num_entries)


def _pooling(num_positions: int, rows: int, device: torch.device) -> Tensor:
    """Returns P, float64 of shape (rows, num_positions)."""
    pooling = torch.zeros(rows, num_positions, dtype=torch.float64, device=device)
    positions = torch.arange(num_positions, device=device)
    # Of no positions there are no segments, and nothing to divide by.
    pooling[positions * rows // max(num_positions, 1), positions] = 1.0
    sizes = pooling.sum(1, keepdim=True).clamp(min=1.0)
    return pooling / sizes.sqrt()


def _sum_of_roots(gram: Tensor) -> Tensor:
    """Returns the sum of the singular values of Z from ``Z Z^T``."""
    if not bool(torch.isfinite(gram).all()):
        return gram.new_tensor(math.nan)  # the eigensolver would raise
    # torch does not type its linear algebra.
    eigenvalues: Tensor = cast("Any", torch.linalg).eigvalsh(gram)
    # What is zero comes out on both sides of it.
    return eigenvalues.clamp(min=0.0).sqrt().sum()


def _triangle(states: Tensor) -> Tensor:
    """Returns R, of shape (w, w), where ``states = Q R``."""
    triangle: Tensor = cast("Any", torch.linalg).qr(states, mode="r")[1]
    return triangle


def _blocks(length: int, width: int) -> Iterator[tuple[int, int]]:
    """Yields the ranges that ``length`` rows of some width are gone through in."""
    size = max(1, _BLOCK_ENTRIES // max(width, 1))
    for start in range(0, length, size):
        yield start, min(start + size, length)
