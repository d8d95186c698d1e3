"""Pair embeddings that stay on the scorers, as the joint policy sees them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from curator.engine._hosted_scorer import Logits
from curator.scores import PairLoss
from curator.types import PairRows

__all__ = ["RayPairs"]

_numbers = itertools.count()


class RayPairs:
    """A :class:`curator.types.ShardedPairs` on a Ray cluster.

    When a scorer is lost with its embeddings, they are computed again and what was
    asked of them so far is repeated: each answer is a function of the questions before
    it, so the policy does not notice.
    """

    def __init__(
        self,
        session: str,
        rows: Sequence[Int64[np.ndarray, " _"]],
        hold: Callable[[str], Logits],
        ask: Callable[[str, str, Sequence[Sequence[object]]], list[Any] | None],
    ) -> None:
        """Has the scorers compute the embeddings.

        Args:
            session: For the name of the super-batch.
            rows: Which candidates each shard has.
            hold: Computes the embeddings of a super-batch under a name.
            ask: Calls a method of all shards under a name, each with its arguments;
                None where a shard is lost.
        """
        self._session = session
        self.rows = rows
        self._hold = hold
        self._ask = ask
        self._asked: list[tuple[str, Sequence[Sequence[object]]]] = []
        self._name = self._next_name()
        self.logits = hold(self._name)

    def start(
        self, loss: PairLoss, coefficients: Mapping[str, float]
    ) -> list[Float64[np.ndarray, " _"]]:
        """Returns the scores of all candidates given nothing; NaN for unusable ones."""
        self._asked.clear()
        return self._call("start", [(loss, coefficients) for _ in self.rows])

    def take(self, chunks: Sequence[Int64[np.ndarray, " _"]]) -> list[list[PairRows]]:
        """Returns the embeddings of candidates, by model; their scores are final."""
        return self._call("take", [(chunk,) for chunk in chunks])

    def add(self, rows: Sequence[PairRows]) -> list[Float64[np.ndarray, " _"]]:
        """Returns the bounds of all candidates given these examples too."""
        return self._call("add", [(rows,) for _ in self.rows])

    def settle(
        self, chunks: Sequence[Int64[np.ndarray, " _"]]
    ) -> list[Float64[np.ndarray, " _"]]:
        """Returns the scores of candidates, which are their bounds from now on."""
        return self._call("settle", [(chunk,) for chunk in chunks])

    def _call(self, method: str, arguments: Sequence[Sequence[object]]) -> list[Any]:
        self._asked.append((method, arguments))
        answer = self._ask(self._name, method, arguments)
        while answer is None:
            self._name = self._next_name()
            self._hold(self._name)
            for question in self._asked:
                answer = self._ask(self._name, *question)
                if answer is None:
                    break
        return answer

    def _next_name(self) -> str:
        return f"{self._session}-{next(_numbers)}"
