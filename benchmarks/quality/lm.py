"""Instruction pairs and a small language model over bytes, trained from nothing.

Three variants: the pairs as they are; four fifths of the pool repeating twenty of them;
and one response in ten given to another prompt.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.quality.fashion import NOISE
from benchmarks.quality.instructions import DOMAINS, LENGTH, Pairs, read_pairs
from benchmarks.quality.task import Columns, Data, Task, as_tensors
from curator import ModelSpec

__all__ = ["BUCKETS", "byte_lm", "instructions", "make_pool", "response_loss"]

VOCABULARY = 256
_MODEL_READS = ("tokens", "mask")
POOL_SIZE = 12_000
NUM_REPEATED, REPEATED_SHARE = 20, 0.8
RARE = ("jargon", "chat", "satire")  # each under 3 % of the pairs
BUCKETS = tuple(f"length_{i}" for i in range(16))  # equally wide
Variant = Literal["", "repeats", "noise"]


def instructions(variant: Variant = "") -> Task:
    """Returns the task; ``length`` among its diagnostics is in supervised bytes."""
    return Task(
        name="instructions" + (f"-{variant}" if variant else ""),
        model=ModelSpec(
            kind="causal_lm",
            factory="benchmarks.quality.lm:byte_lm",
            columns=["tokens"],
            tokens="tokens",
            mask="mask",
            micro_batch_size=64,
        ),
        proxy=None,
        proxy_share=1.0,
        load=functools.partial(load, variant),
        loss=response_loss,
        evaluate=log_likelihood,
        optimizer=adamw,
        batch_size=16,
        super_batch_size=64,
        num_epochs=1,
        short_steps=400,
        num_rounds=1,
        reference_epochs=1,
        grid=(1.5e-3, 3e-3, 6e-3),
        settings={
            "pool": POOL_SIZE,
            "repeated": [NUM_REPEATED, REPEATED_SHARE],
            "noise": NOISE,
            "length": LENGTH,
        },
        diagnostics=("length", "repeat", "wrong", "rare", *BUCKETS),
    )


def load(variant: Variant, seed: int) -> Data:
    """Returns the pool of a seed, as many other pairs, and the held-out pairs."""
    rng = np.random.default_rng([seed, 53])
    pairs, test = read_pairs(is_test=False), read_pairs(is_test=True)
    order = rng.permutation(len(pairs.domain))
    halves = order[:POOL_SIZE], order[POOL_SIZE : 2 * POOL_SIZE]
    train, holdout = (make_pool(pairs, half, variant, rng) for half in halves)
    return Data(train, holdout, make_pool(test, np.arange(len(test.domain)), "", rng))


def make_pool(
    pairs: Pairs, rows: np.ndarray, variant: Variant, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Returns a pool of some pairs, with what is reported of them.

    Args:
        pairs: All pairs, at least as many tokens long as there are buckets.
        rows: Which of them; as many are in the pool.
        variant: ``repeats``: the first rows in the place of most; ``noise``: some
            prompts with the response of another.
        rng: Draws both.
    """
    size = len(rows)
    repeat = np.zeros(size, bool)
    if variant == "repeats":
        repeat = rng.random(size) < REPEATED_SHARE
        rows = np.where(repeat, rows[rng.integers(0, NUM_REPEATED, size)], rows)
    tokens, mask = pairs.tokens[rows], pairs.mask[rows]
    wrong = np.zeros(size, bool)
    if variant == "noise":
        wrong = rng.random(size) < NOISE
        _exchange_responses(tokens, mask, np.flatnonzero(wrong), rng)
    length = mask.sum(axis=1, dtype=np.int64)
    rare = [DOMAINS.index(name) for name in RARE]
    width = tokens.shape[1] // len(BUCKETS)
    bucket = (length - 1) // width
    return {
        "tokens": tokens,
        "mask": mask,
        "domain": pairs.domain[rows],
        "length": length,
        "repeat": repeat,
        "wrong": wrong,
        "rare": np.isin(pairs.domain[rows], rare),
        **{name: bucket == i for i, name in enumerate(BUCKETS)},
    }


def _exchange_responses(
    tokens: np.ndarray, mask: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> None:
    """Gives each row the response of another one, cut off where it does not fit."""
    order = rng.permutation(rows)
    responses = {row: tokens[row, mask[row] == 1] for row in rows}
    for row, other in zip(order, np.roll(order, 1), strict=True):
        start = int(mask[row].argmax())
        response = responses[other][: tokens.shape[1] - start]
        tokens[row, start:], mask[row, start:] = 0, 0
        tokens[row, start : start + len(response)] = response
        mask[row, start : start + len(response)] = 1


class _Block(nn.Module):
    """Causal attention and two layers, each on a norm of what is added to."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.into = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.layers = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], 3, self.num_heads, -1)
        parts = self.into(self.norms[0](x)).view(shape).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(x.shape))
        return x + self.layers(self.norms[1](x))


class _ByteLm(nn.Module):
    """Returns hidden states, for the service; and the head, for the loss."""

    def __init__(self, dim: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, dim)
        self.positions = nn.Parameter(torch.randn(LENGTH, dim) * 0.02)
        self.blocks = nn.Sequential(
            *(_Block(dim, num_heads) for _ in range(num_layers))
        )
        self.norm = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, VOCABULARY, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.lm_head.weight = self.embed.weight

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tokens = batch["tokens"].long()
        x = self.embed(tokens) + self.positions[: tokens.shape[1]]
        return {"hidden": self.norm(self.blocks(x)), "head": self.lm_head.weight}


def byte_lm() -> nn.Module:
    """Returns the model: two layers of width 96, 260,000 parameters."""
    return _ByteLm(dim=96, num_layers=2, num_heads=4)


def response_loss(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the mean loss of each example's supervised bytes, in nats [B]."""
    targets = batch["mask"][:, 1:].bool()
    logits = outputs["hidden"][:, :-1][targets] @ outputs["head"].T
    expected = batch["tokens"][:, 1:][targets].long()
    losses = functional.cross_entropy(logits, expected, reduction="none")
    example = targets.nonzero()[:, 0]
    sums = torch.zeros(len(targets)).index_add(0, example, losses)
    return sums / targets.sum(dim=1)


def adamw(parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
    """Returns the optimizer."""
    return torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )


@torch.inference_mode()
def log_likelihood(model: nn.Module, test: Columns) -> dict[str, float]:
    """Returns minus the held-out loss in nats per byte, so that higher is better.

    The first is the mean over domains, which all count the same; ``rare`` the mean over
    the rare ones; then each domain's own.
    """
    model.eval()
    losses = np.empty(len(test["length"]), np.float32)
    mask = test["mask"]
    size = mask.shape[1] - mask[:, ::-1].argmax(axis=1)
    # Short ones together, without the padding that all of them have: it is most of it.
    for rows in np.array_split(np.argsort(size, kind="stable"), 16):
        columns = {name: test[name][:, : size[rows].max()] for name in _MODEL_READS}
        batch = as_tensors(columns, rows)
        losses[rows] = response_loss(model(batch), batch).numpy()
    model.train()
    domains = {
        name: -float(losses[test["domain"] == index].mean())
        for index, name in enumerate(DOMAINS)
    }
    return {
        "log_likelihood": math.fsum(domains.values()) / len(domains),
        "rare": math.fsum(domains[name] for name in RARE) / len(RARE),
        **domains,
    }
