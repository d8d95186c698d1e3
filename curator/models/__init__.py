"""Models that score candidates, and the files their weights travel in.

Importing this package imports no torch; the first use of what runs a model does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from curator.errors import MissingDependencyError
from curator.models._base import Scorer
from curator.models._build import build_scorer
from curator.models._identity import check_scores, model_identity
from curator.models._table import ScoreTable
from curator.models._weights import weights_to_bytes, write_weights

if TYPE_CHECKING:
    from curator.models._causal_lm import CausalLMHead
    from curator.models._classifier import ClassifierHead
    from curator.models._head import Head
    from curator.models._scorer import ModuleScorer
    from curator.models._two_tower import TwoTowerHead

__all__ = [
    "CausalLMHead",
    "ClassifierHead",
    "Head",
    "ModuleScorer",
    "ScoreTable",
    "Scorer",
    "TwoTowerHead",
    "build_scorer",
    "check_scores",
    "model_identity",
    "weights_to_bytes",
    "write_weights",
]

_TORCH = {
    "CausalLMHead": "curator.models._causal_lm",
    "ClassifierHead": "curator.models._classifier",
    "Head": "curator.models._head",
    "ModuleScorer": "curator.models._scorer",
    "TwoTowerHead": "curator.models._two_tower",
}


def __getattr__(name: str) -> object:
    if name not in _TORCH:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        module = importlib.import_module(_TORCH[name])
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        msg = (
            "scoring with a model needs torch, which is not installed: "
            "pip install 'batch-curator[torch]'"
        )
        raise MissingDependencyError(msg) from error
    return getattr(module, name)
