from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from curator.models import _spectral
from curator.models._spectral import LogitGeometry, nuclear_norms, projections

CLOSE = 1e-4


def normal(seed: int, *shape: int) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape)
    return torch.tensor(values, dtype=torch.float32)


def logits_of(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    logits = hidden.double() @ weight.double().T
    return logits if bias is None else logits + bias.double()


def everywhere(values: Tensor) -> Tensor:
    return torch.ones(values.shape[:2], dtype=torch.bool)


def by_svd(logits: Tensor, mask: Tensor, *, center_rows: bool = False) -> list[float]:
    norms: list[float] = []
    for example, supervised in zip(logits, mask, strict=True):
        matrix = example[supervised].double().numpy()
        if center_rows:
            matrix = matrix - matrix.mean(axis=1, keepdims=True)
        norms.append(float(np.linalg.svd(matrix, compute_uv=False).sum()))
    return norms


def pooled(matrix: np.ndarray, rows: int) -> np.ndarray:
    """P Z, as it is documented."""
    sums = np.zeros((rows, matrix.shape[1]))
    sizes = np.zeros(rows)
    for position, row in enumerate(matrix):
        sums[position * rows // len(matrix)] += row
        sizes[position * rows // len(matrix)] += 1
    return sums / np.sqrt(np.maximum(sizes, 1))[:, None]


HIDDEN = {
    "random": normal(1, 2, 40, 24),
    "as many positions as dimensions": normal(2, 2, 24, 24),
    "more positions than dimensions": normal(3, 2, 200, 24),
    "one position": normal(4, 2, 1, 24),
    "rank one": normal(5, 2, 40, 1) @ normal(6, 2, 1, 24),
    "rank three": normal(7, 2, 40, 3) @ normal(8, 2, 3, 24),
    "nearly collinear": 30.0 * normal(9, 2, 1, 24) + 1e-4 * normal(10, 2, 40, 24),
    "zero": torch.zeros(2, 40, 24),
}


@pytest.mark.parametrize("center_rows", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("name", HIDDEN)
def test_nuclear_norm_is_that_of_the_logits(name, has_bias, center_rows):
    hidden, weight = HIDDEN[name], normal(11, 300, 24)
    bias = normal(12, 300) if has_bias else None
    mask = everywhere(hidden)
    logits = logits_of(hidden, weight, bias)
    geometry = LogitGeometry(weight, bias, center_rows=center_rows)

    wanted = by_svd(logits, mask, center_rows=center_rows)
    from_hidden = geometry.nuclear_norms(hidden, mask)
    from_logits = nuclear_norms(logits, mask, center_rows=center_rows)

    np.testing.assert_allclose(from_hidden, wanted, rtol=CLOSE)
    np.testing.assert_allclose(from_logits, wanted, rtol=CLOSE)


@settings(max_examples=60, deadline=None)
@given(
    positions=st.integers(1, 30),
    width=st.integers(1, 20),
    vocabulary=st.integers(1, 40),
    rank=st.integers(1, 20),
    has_bias=st.booleans(),
    center_rows=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_hidden_states_logits_and_svd_agree_for_every_shape(
    positions, width, vocabulary, rank, has_bias, center_rows, seed
):
    hidden = normal(seed, 2, positions, rank) @ normal(seed + 1, 2, rank, width)
    weight = normal(seed + 2, vocabulary, width) + 2.0
    bias = 3.0 * normal(seed + 3, vocabulary) if has_bias else None
    mask = torch.tensor(np.random.default_rng(seed).random((2, positions)) < 0.7)
    logits = logits_of(hidden, weight, bias)
    geometry = LogitGeometry(
        weight, bias, seed=seed, rows=3, columns=5, center_rows=center_rows
    )

    wanted = by_svd(logits, mask, center_rows=center_rows)
    floor = CLOSE * 1e-3 * float(logits.abs().max())  # centred, one logit is 0
    np.testing.assert_allclose(
        geometry.nuclear_norms(hidden, mask), wanted, rtol=CLOSE, atol=floor
    )
    np.testing.assert_allclose(
        nuclear_norms(logits, mask, center_rows=center_rows),
        wanted,
        rtol=CLOSE,
        atol=floor,
    )
    np.testing.assert_allclose(
        geometry.projections(hidden, mask),
        projections(
            logits, mask, seed=seed, rows=3, columns=5, center_rows=center_rows
        ),
        rtol=1e-5,
        atol=floor,
    )


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_head_of_a_model_is_taken_as_it_is(is_tied, dtype):
    embedding, head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=not is_tied)
    with torch.no_grad():
        embedding.weight.copy_(normal(1, 50, 8))
        head.weight.copy_(normal(2, 50, 8))
    if is_tied:
        head.weight = embedding.weight
    embedding, head = embedding.to(dtype), head.to(dtype)
    hidden = embedding(torch.tensor([[3, 1, 4, 1, 5]]))
    bias = cast("Tensor | None", head.bias)
    geometry = LogitGeometry(head.weight, bias)

    norm = geometry.nuclear_norms(hidden, everywhere(hidden))

    with torch.no_grad():
        logits = logits_of(hidden, head.weight, bias)
    np.testing.assert_allclose(norm, by_svd(logits, everywhere(logits)), rtol=CLOSE)
    assert not norm.requires_grad


def test_long_rank_one_example_gets_little_from_rounding():
    hidden = normal(1, 1, 1000, 1) @ normal(2, 1, 1, 1100)
    weight = normal(3, 1200, 1100)

    norm = LogitGeometry(weight, None).nuclear_norms(hidden, everywhere(hidden))

    # Of a matrix of rank one, the only singular value is the Frobenius norm; rounded
    # to float32, the hidden states are of rank one to 1e-6 only.
    wanted = float(torch.linalg.matrix_norm(logits_of(hidden, weight, None)))
    np.testing.assert_allclose(norm, [wanted], rtol=CLOSE)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16), factor=st.floats(1e-3, 1e3), is_flipped=st.booleans()
)
def test_nuclear_norm_ignores_rotations_of_the_positions_and_is_homogeneous(
    seed, factor, is_flipped
):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((1, 6, 30))
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    mask = torch.ones(1, 6, dtype=torch.bool)
    norm = nuclear_norms(torch.tensor(logits), mask).numpy()

    rotated = nuclear_norms(torch.tensor(rotation @ logits), mask)
    scaled = nuclear_norms(
        torch.tensor((-factor if is_flipped else factor) * logits), mask
    )

    np.testing.assert_allclose(rotated, norm, rtol=1e-9)
    np.testing.assert_allclose(scaled, factor * norm, rtol=1e-9)


def test_centred_logits_are_blind_to_what_softmax_is_blind_to():
    hidden, weight = normal(1, 2, 12, 8), normal(2, 100, 8)
    mask = everywhere(hidden)
    shifted = weight + normal(3, 8)  # adds a constant to each position's logits

    for center_rows in (True, False):
        first, second = (
            LogitGeometry(head, None, center_rows=center_rows)
            for head in (weight, shifted)
        )
        norms = [g.nuclear_norms(hidden, mask) for g in (first, second)]
        sketches = [g.projections(hidden, mask) for g in (first, second)]
        assert np.allclose(*norms, rtol=CLOSE) == center_rows
        assert np.allclose(*sketches, rtol=1e-3, atol=1e-3) == center_rows


def test_padding_and_neighbours_change_no_bit():
    weight, bias = normal(1, 100, 8), normal(2, 100)
    geometry = LogitGeometry(weight, bias, rows=3, columns=7)
    alone = normal(3, 1, 10, 8)
    hidden = torch.full((3, 25, 8), torch.nan)
    hidden[1, 4:14] = alone[0]
    hidden[2] = 1.0
    mask = torch.zeros(3, 25, dtype=torch.bool)
    mask[1, 4:14] = mask[2] = True
    mask[0, 5] = True  # a hidden state that is not finite

    norms = geometry.nuclear_norms(hidden, mask)
    sketches = geometry.projections(hidden, mask)

    assert torch.isnan(norms[0])
    assert torch.isnan(sketches[0]).any()
    everything = everywhere(alone)
    assert norms[1] == geometry.nuclear_norms(alone, everything)[0]
    assert torch.equal(sketches[1], geometry.projections(alone, everything)[0])
    assert torch.isfinite(norms[2])


def test_example_without_supervised_positions_is_zero():
    hidden, weight = normal(1, 1, 5, 8), normal(2, 100, 8)
    nothing = torch.zeros(1, 5, dtype=torch.bool)
    geometry = LogitGeometry(weight, None)
    logits = logits_of(hidden, weight, None)

    for norms in (
        geometry.nuclear_norms(hidden, nothing),
        nuclear_norms(logits, nothing, center_rows=True),
    ):
        assert norms.tolist() == [0.0]
    for sketches in (
        geometry.projections(hidden, nothing),
        projections(logits, nothing, center_rows=True),
    ):
        assert sketches.tolist() == [[0.0] * 1024]


@pytest.mark.parametrize("num_positions", [1, 3, 8, 10, 21])
def test_whole_transform_keeps_the_norm_of_the_pooled_logits(num_positions):
    logits = normal(num_positions, 1, num_positions, 60)
    keeping_all = projections(logits, everywhere(logits), rows=8, columns=60)
    padded_to_more = projections(logits, everywhere(logits), rows=8, columns=90)

    wanted = np.linalg.norm(pooled(logits[0].double().numpy(), 8), axis=1)

    for sketch in (keeping_all, padded_to_more):
        by_segment = np.linalg.norm(sketch.numpy().reshape(8, -1), axis=1)
        np.testing.assert_allclose(by_segment, wanted, rtol=1e-5, atol=1e-6)


def test_pooling_loses_nothing_of_short_or_piecewise_constant_examples():
    short, steps = normal(1, 1, 5, 60), normal(2, 1, 8, 60).repeat_interleave(4, dim=1)

    for logits in (short, steps):
        sketch = projections(logits, everywhere(logits), rows=8, columns=60)
        assert float(sketch.norm()) == pytest.approx(float(logits.norm()), rel=1e-5)


@pytest.mark.parametrize("num_positions", [4, 30])
def test_sketch_has_the_norm_of_the_pooled_logits_in_expectation(num_positions):
    # A vocabulary with structure: a transform that was not random would miss it.
    logits = normal(1, 1, num_positions, 200) + 2.0
    wanted = np.sum(pooled(logits[0].double().numpy(), 8) ** 2)

    ratios = [
        float(
            projections(logits, everywhere(logits), seed=seed, columns=16)
            .square()
            .sum()
            / wanted
        )
        for seed in range(500)
    ]

    assert np.mean(ratios) == pytest.approx(1.0, abs=0.02)
    assert np.std(ratios) > 0.05  # the seed matters


def test_distances_between_sketches_are_right_to_ten_per_cent():
    logits = normal(1, 24, 8, 3000)
    mask = everywhere(logits)

    sketches = projections(logits, mask).double()

    pairs = np.triu_indices(24, 1)
    true = torch.cdist(logits.double().flatten(1), logits.double().flatten(1))[pairs]
    ratio = torch.cdist(sketches, sketches)[pairs] / true
    assert float((ratio - 1.0).square().mean().sqrt()) < 0.1
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.03)


def test_sketch_is_linear():
    first, second = normal(1, 1, 9, 50), normal(2, 1, 9, 50)
    mask = everywhere(first)

    mixed = projections(2.0 * first - 3.0 * second, mask, columns=11)

    apart = [projections(z, mask, columns=11) for z in (first, second)]
    np.testing.assert_allclose(mixed, 2.0 * apart[0] - 3.0 * apart[1], atol=1e-4)


def test_sketch_is_the_documented_matrix():
    sketch = _spectral._VocabularySketch(9, 1, 4, seed=0)
    coordinates, signs = sketch._coordinates, sketch._signs

    entries = np.arange(9)
    cosines = np.sqrt(2 / 9) * np.cos(
        np.pi * (2 * entries + 1) * np.arange(9)[:, None] / 18
    )
    cosines[0] /= np.sqrt(2)
    np.testing.assert_allclose(cosines @ cosines.T, np.eye(9), atol=1e-12)
    wanted = np.sqrt(9 / 4) * cosines[coordinates] * signs
    assert 0 in coordinates  # whose scale differs
    np.testing.assert_allclose(
        sketch.block(0, 9, torch.device("cpu")), wanted, atol=1e-12
    )
    np.testing.assert_allclose(
        sketch.block(3, 7, torch.device("cpu")), wanted[:, 3:7], atol=1e-12
    )


def test_draws_are_the_same_on_every_machine():
    sketch = _spectral._VocabularySketch(50_257, 8, 128, seed=0)

    assert len(np.unique(sketch._coordinates)) == 128
    assert sketch._coordinates[:4].tolist() == [1132, 2305, 3111, 3617]
    assert sketch._signs[:8].tolist() == [1, -1, 1, -1, 1, -1, 1, 1]
    assert set(sketch._signs) == {-1.0, 1.0}
    assert abs(sketch._signs.mean()) < 0.02


def test_seeds_draw_different_sketches():
    logits = normal(1, 1, 9, 50)
    sketches = [
        projections(logits, everywhere(logits), seed=s, columns=11) for s in range(3)
    ]

    assert not torch.equal(sketches[0], sketches[1])
    assert not torch.equal(sketches[1], sketches[2])


@pytest.mark.parametrize("center_rows", [False, True])
def test_blocks_of_the_vocabulary_change_rounding_only(monkeypatch, center_rows):
    hidden, weight, bias = normal(1, 2, 9, 8), normal(2, 60, 8), normal(3, 60)
    logits = logits_of(hidden, weight, bias)
    few_entries = logits[:, :, :5]  # fewer than positions
    mask = everywhere(hidden)

    def everything() -> list[np.ndarray]:
        geometry = LogitGeometry(weight, bias, columns=6, center_rows=center_rows)
        return [
            geometry.nuclear_norms(hidden, mask).numpy(),
            geometry.projections(hidden, mask).numpy(),
            nuclear_norms(logits, mask, center_rows=center_rows).numpy(),
            nuclear_norms(few_entries, mask, center_rows=center_rows).numpy(),
            projections(logits, mask, columns=6, center_rows=center_rows).numpy(),
        ]

    whole = everything()
    monkeypatch.setattr(_spectral, "_BLOCK_ENTRIES", 70)
    in_blocks = everything()

    for one, other in zip(whole, in_blocks, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_geometry_is_of_the_weights_it_was_made_from():
    hidden, weight = normal(1, 2, 9, 8), normal(2, 60, 8)
    mask = everywhere(hidden)
    geometry = LogitGeometry(weight, None)
    norms, sketches = (
        geometry.nuclear_norms(hidden, mask),
        geometry.projections(hidden, mask),
    )

    weight.zero_()

    assert torch.equal(geometry.nuclear_norms(hidden, mask), norms)
    assert torch.equal(geometry.projections(hidden, mask), sketches)


class LargestTensor(TorchDispatchMode):
    """Remembers the number of entries of the largest tensor that was made."""

    num_entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.num_entries = max(self.num_entries, value.numel())
        return result


@pytest.mark.slow  # torch imports its dispatch machinery on first use
def test_logits_of_no_example_are_ever_formed():
    hidden, weight = normal(1, 4, 64, 16), normal(2, 5_000, 16)
    mask = everywhere(hidden)

    with LargestTensor() as formed:
        logits_of(hidden, weight, None)
    with LargestTensor() as largest:
        geometry = LogitGeometry(weight, None, columns=16)
        geometry.nuclear_norms(hidden, mask)
        geometry.projections(hidden, mask)

    assert formed.num_entries == 4 * 64 * 5_000  # it would have been noticed
    assert largest.num_entries < 64 * 5_000


def test_positions_that_outnumber_dimensions_are_not_compared_with_each_other():
    hidden = normal(1, 1, 500, 8)
    geometry = LogitGeometry(normal(2, 60, 8), normal(3, 60))

    with LargestTensor() as largest:
        geometry.nuclear_norms(hidden, everywhere(hidden))

    assert largest.num_entries <= 500 * 9


@pytest.mark.parametrize(("rows", "columns"), [(0, 128), (8, 0)])
def test_empty_sketches_are_refused(rows, columns):
    with pytest.raises(ValueError, match="rows and columns must be at least 1; got"):
        LogitGeometry(normal(1, 60, 8), None, rows=rows, columns=columns)


def test_hidden_states_of_another_width_are_refused():
    geometry = LogitGeometry(normal(1, 60, 8), None)
    hidden = normal(2, 2, 9, 7)

    with pytest.raises(ValueError, match="as wide as the output head, 8; got 7"):
        geometry.nuclear_norms(hidden, everywhere(hidden))
    with pytest.raises(ValueError, match="as wide as the output head, 8; got 7"):
        geometry.projections(hidden, everywhere(hidden))
