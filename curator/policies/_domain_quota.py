"""So many of each domain, and the best of each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from curator.policies._allocation import capped_shares, first_of_groups, round_shares
from curator.policies._candidates import (
    Candidates,
    LossName,
    check_score,
    read_any_score,
    score_needs,
)
from curator.policies._features import read_labels
from curator.policies._ranking import highest, random_order
from curator.rng import Noise, key
from curator.scores import ScoreName
from curator.types import Features, Selection

__all__ = ["DomainQuota", "domain_counts"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DomainQuota:
    """Prefers a fixed mixture of domains, and inside each the highest scores.

    Use it where the batch must keep a balance (sources, languages, classes) that a
    score alone would lose, and as the stratified baseline that every learnt mixture has
    to beat. Without a score, examples are drawn uniformly inside each domain. Costs
    O(B log B); random without a score, and where examples do not divide evenly.

    Attributes:
        domain: The column of the pool that says which domain an example is of.
        quotas: The share of each domain, by its value as a string (``"3"`` for the
            integer 3), of any scale; other domains have share 0. None is equal shares
            for the domains among the candidates.
        score: What is ranked by inside a domain; None draws uniformly.
        loss: What the score is made of, as for :class:`curator.policies.TopK`.

    Stats: ``num_quarantined``, ``num_topped_up``, ``score_mean`` of the chosen where
    there is a score; ``num_domains`` among the usable candidates; ``num_moved``, how
    many places of the batch went to other domains because their own had too few.

    Example:
        >>> features = {
        ...     "pool.domain": np.array(["web", "web", "web", "code"]),
        ...     "learner.loss": np.array([0.3, 0.9, 0.8, 0.1]),
        ... }
        >>> policy = DomainQuota(score="loss")
        >>> policy.select(np.arange(4), features, 2, Noise(seed=0, step=0)).indices
        array([1, 3])
    """

    name: ClassVar[str] = "domain_quota"

    domain: str = "domain"
    quotas: dict[str, float] | None = None
    score: ScoreName | None = None
    loss: LossName = "scalar"

    def __post_init__(self) -> None:
        if self.score is not None:
            check_score(self.score, self.loss)
        elif self.loss != "scalar":
            msg = (
                f"loss {self.loss!r} says what a score is made of; got score=None, "
                "which draws uniformly. Name a score, or leave the loss out"
            )
            raise ValueError(msg)
        if self.quotas is None:
            return
        for name, share in self.quotas.items():
            if not (math.isfinite(share) and share >= 0):
                msg = f"quotas[{name!r}] must be finite and at least 0; got {share}"
                raise ValueError(msg)
        if not any(self.quotas.values()):
            msg = f"quotas must have a share above 0; got {self.quotas}"
            raise ValueError(msg)

    @property
    def needs(self) -> frozenset[str]:
        """The pool's column of domains, and the features of the score."""
        column = frozenset({f"pool.{self.domain}"})
        if self.score is None:
            return column
        return column | score_needs(self.score, self.loss)

    def select(
        self,
        ids: Int64[np.ndarray, " B"],
        features: Features,
        num_selected: int,
        noise: Noise,
    ) -> Selection:
        """Returns the batch, highest scores first, or in random order.

        Raises:
            FeatureError: A needed feature is missing or of the wrong shape.
            ValueError: ``num_selected`` is out of range.
        """
        labels, known = read_labels(features, f"pool.{self.domain}", ids)
        if self.score is None:
            candidates = Candidates.of(ids, known, None, num_selected, noise)
            order = random_order(candidates.ids, noise)
        else:
            scores = read_any_score(self.score, self.loss, ids, features)
            usable = known & np.isfinite(scores)
            candidates = Candidates.of(ids, usable, scores, num_selected, noise)
            ranked = scores[candidates.positions]
            order = highest(ranked, candidates.ids, len(ranked))
        names, domains = np.unique(labels[candidates.positions], return_inverse=True)
        counts, num_moved = domain_counts(
            names.tolist(),
            np.bincount(domains, minlength=len(names)),
            self.quotas,
            candidates.num_drawn,
            noise,
        )
        return candidates.select(
            order[first_of_groups(domains[order], counts)],
            stats={"num_domains": float(len(names)), "num_moved": num_moved},
        )


def domain_counts(
    names: Sequence[str],
    sizes: Int64[np.ndarray, " G"],
    quotas: Mapping[str, float] | None,
    total: int,
    noise: Noise,
) -> tuple[Int64[np.ndarray, " G"], float]:
    """Returns how many examples of each domain make a batch.

    Where a domain has too few, its places go to the others in proportion to their
    shares; to domains without a share only when the others have no more.

    Args:
        names: The domains that there are.
        sizes: How many candidates each has.
        quotas: Shares by name; None where all are equal.
        total: Size of the batch, at most the sum of ``sizes``.
        noise: Says which shares are rounded up.

    Returns:
        The counts, and how many of them, before rounding, are not by its own quota.
    """
    if quotas is None:
        quotas = dict.fromkeys(names, 1.0)
    largest = max(quotas.values(), default=1.0)  # so that sums are in range
    shares = np.array([quotas.get(name, 0.0) / largest for name in names])
    all_shares = sum(share / largest for share in quotas.values())
    caps = sizes.astype(np.float64)
    split = np.zeros(len(names))
    left = float(total)
    for group, parts in ((shares > 0, shares), (shares == 0, np.ones(len(names)))):
        part = min(left, float(caps[group].sum()))
        split[group] = capped_shares(parts[group], caps[group], part)
        left -= part
    order = noise.uniform(np.array([_label_id(name) for name in names], np.int64))
    (start,) = noise.uniform(np.zeros(1, np.int64), chunk=1)
    own = total * shares / all_shares if all_shares else shares
    # Shares are rounded, and a part of 1e-15 is nobody's place.
    num_moved = round(float(np.maximum(split - own, 0).sum()), 9)
    return round_shares(split, total, order, float(start)), num_moved


def _label_id(name: str) -> int:
    """Returns a 63-bit number that belongs to a name."""
    return key("domain", name) >> 1
