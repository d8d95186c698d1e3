"""Against the published code's formulas (gfyddha/UDS), written down again in torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pair_worlds import scores_of
from torch import Tensor

from curator.models._spectral import nuclear_norms
from curator.policies import UDS
from curator.rng import Noise

POSITIONS = 512  # what it pads to
VOCABULARY = 48
ALPHA = 1.5e-3


class Projector:
    """Two transforms, not normalised, of which the real parts are kept."""

    def __init__(self, seed: int, rows: int = 8, columns: int = 128) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.signs = [
            2.0 * torch.randint(0, 2, (size,), generator=draw) - 1.0
            for size in (VOCABULARY, POSITIONS)
        ]
        self.kept = [
            torch.randint(0, size, (num,), generator=draw)  # with replacement
            for size, num in ((VOCABULARY, columns), (POSITIONS, rows))
        ]
        self.scale = math.sqrt(VOCABULARY / columns) * math.sqrt(POSITIONS / rows)

    def __call__(self, logits: Tensor) -> Tensor:
        padded = torch.zeros(POSITIONS, VOCABULARY)
        padded[: len(logits)] = logits
        right = torch.fft.fft(padded * self.signs[0], dim=1).real[:, self.kept[0]]
        left = torch.fft.fft(right * self.signs[1][:, None], dim=0).real
        return self.scale * left[self.kept[1]].flatten()


def random_logits(seed: int, num: int, num_positions: int) -> Tensor:
    rng = np.random.default_rng(seed)
    scales = rng.gamma(2.0, size=(num, 1, 1))
    values = scales * rng.standard_normal((num, num_positions, VOCABULARY))
    return torch.tensor(values, dtype=torch.float32)


def test_scores_choices_and_buffer_are_those_of_the_published_code():
    projector = Projector(0)
    policy = UDS(alpha=ALPHA, buffer_size=5, official_vocabulary=VOCABULARY)
    inflation = math.sqrt(POSITIONS * VOCABULARY) / 2
    buffer, memory = torch.empty(0, 1024), np.empty((0, 1), np.float32)

    for step in range(5):
        logits = random_logits(step, 8, 20)
        projected = torch.stack([projector(example) for example in logits])
        diversity = torch.zeros(8)
        if len(buffer):
            diversity = torch.cdist(projected, buffer).mean(dim=1)
        utility = torch.linalg.svdvals(logits).sum(dim=1)
        wanted = torch.topk(utility + ALPHA * diversity, 2)
        buffer = torch.cat([buffer, projected[wanted.indices]])[-5:]

        everywhere = torch.ones(8, 20, dtype=torch.bool)
        features = {
            "learner.nuclear_norm": nuclear_norms(logits, everywhere).numpy(),
            "learner.projection": (projected / inflation).numpy(),
            "memory": memory,
        }
        selection = policy.select(np.arange(8), features, 2, Noise(seed=0, step=step))
        assert selection.remember is not None
        memory = np.concatenate([memory.reshape(-1, 1024), selection.remember])[-5:]

        assert selection.indices.tolist() == wanted.indices.tolist()
        np.testing.assert_allclose(scores_of(selection), wanted.values, rtol=1e-4)
        if step:
            assert float((ALPHA * diversity).min()) > 0.01 * float(utility.min())


def test_published_distances_are_larger_by_what_the_option_multiplies():
    logits = random_logits(1, 1, 64)[0]
    norms = [float(Projector(seed)(logits).norm()) ** 2 for seed in range(300)]

    inflation = math.sqrt(np.mean(norms)) / float(logits.norm())

    assert inflation == pytest.approx(math.sqrt(POSITIONS * VOCABULARY) / 2, rel=0.03)


def test_default_alpha_is_that_of_the_published_script_on_the_true_scale():
    inflation = math.sqrt(512 * 152_064) / 2

    assert UDS().alpha == pytest.approx(1.5e-3 * inflation, abs=0.05)
    assert 2.5e-3 * inflation == pytest.approx(11.0, abs=0.05)
