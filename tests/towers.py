"""A two-tower model small enough to score in microseconds, with faults to order."""

import threading

import torch
from torch import nn

# A model built with gate=True scores only while this is set, and says when it waits.
GATE = threading.Event()
GATE.set()
AT_GATE = threading.Event()


class Towers(nn.Module):
    """Linear towers over the columns ``image`` and ``text`` of ``worlds.pairs``."""

    def __init__(self, width, fail_on, nan_on, gate):
        super().__init__()
        self.image = nn.Linear(4, width)
        self.text = nn.Linear(4, width)
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))
        self._fail_on = fail_on
        self._nan_on = nan_on
        self._gate = gate

    def forward(self, batch):
        if self._gate:
            AT_GATE.set()
            GATE.wait()
        number = batch["number"]
        if self._fail_on is not None and bool((number == self._fail_on).any()):
            message = f"cannot score example {self._fail_on}"
            raise RuntimeError(message)
        queries = self.image(batch["image"])
        if self._nan_on is not None:
            queries = torch.where(
                (number % self._nan_on == 0)[:, None], torch.nan, queries
            )
        return {
            "queries": queries,
            "targets": self.text(batch["text"]),
            "logit_scale": self.log_scale.exp(),
            "logit_bias": self.bias,
        }


def build(*, seed=0, width=3, fail_on=None, nan_on=None, gate=False):
    """Returns the model, the same one for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Towers(width, fail_on, nan_on, gate)
