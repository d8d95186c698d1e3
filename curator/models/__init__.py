"""Models that score candidates, and the files their weights travel in.

Importing this package imports no torch; the first use of :class:`TwoTowerScorer` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from curator.errors import MissingDependencyError
from curator.models._base import Scorer
from curator.models._weights import weights_to_bytes, write_weights

if TYPE_CHECKING:
    from curator.models._two_tower import TwoTowerScorer

__all__ = ["Scorer", "TwoTowerScorer", "weights_to_bytes", "write_weights"]


def __getattr__(name: str) -> object:
    if name != "TwoTowerScorer":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        from curator.models._two_tower import TwoTowerScorer
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        msg = (
            "scoring with a model needs torch, which is not installed: "
            "pip install 'batch-curator[torch]'"
        )
        raise MissingDependencyError(msg) from error
    return TwoTowerScorer
