"""What is to be selected from scores, and what is said of the selection."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from curator.errors import ConfigError
from curator.offline._difference import Difference
from curator.policies import Policy

__all__ = ["SelectJob", "SelectReport"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SelectJob:
    """A subset to select of a scored pool, and where to.

    One of ``num_selected``, ``fraction`` and ``threshold`` says how many; with none of
    them, and without a policy, it is every example that meets the condition.

    Attributes:
        out: File of the subset; there is none yet.
        scores: What the one model says that the policy reads: a folder of ``curator
            score``, or a Parquet file with ``example_id``.
        learner: In the place of ``scores``, what the learner says.
        reference: In the place of ``scores``, what the reference says.
        policy: Which examples are preferred.
        num_selected: How many.
        fraction: How many, of all that have scores; rounded down, but at least 1.
        threshold: All that the policy gives a score of at least this.
        where: What has to be true of an example before the policy sees it:
            ``loss < percentile(loss, 99) and pool.domain == "web"``.
        seed: Of everything random.
        super_batch_size: Select from blocks of so many, in the order in which a session
            with the uniform sampler has its candidates, instead of from all at once.
        pool: Name of the configuration's pool that was scored. Needed for its columns,
            but for those that were copied beside the scores.
        compare: Columns of the pool in which subset and whole are compared; by default
            all that have a value to count or a length, but bytes.
        rows: File that the rows of the subset are written to as well, a pool of their
            own: ``.parquet`` or ``.arrow``.
    """

    out: Path
    scores: Path | None = None
    learner: Path | None = None
    reference: Path | None = None
    policy: Policy | None = None
    num_selected: int | None = None
    fraction: Fraction | None = None
    threshold: float | None = None
    where: str | None = None
    seed: int = 0
    super_batch_size: int | None = None
    pool: str | None = None
    compare: tuple[str, ...] | None = None
    rows: Path | None = None

    def __post_init__(self) -> None:
        self._check_scores()
        self._check_how_many()
        if not -(2**63) <= self.seed < 2**63:
            msg = f"seed: a 64-bit integer; got {self.seed}"
            raise ConfigError(msg)
        if self.super_batch_size is not None:
            if self.super_batch_size < 1:
                msg = f"super_batch_size: at least 1; got {self.super_batch_size}"
                raise ConfigError(msg)
            if self.policy is None:
                msg = (
                    "super_batch_size: a condition sees one example at a time; name a "
                    "policy, or leave it out"
                )
                raise ConfigError(msg)
        if self.rows is not None and self.pool is None:
            msg = "rows: they are in the pool that was scored; name it"
            raise ConfigError(msg)

    def size_of(self, num_examples: int) -> int | None:
        """Returns how many to select of so many; None where scores decide it."""
        if self.fraction is None:
            return self.num_selected
        return max(1, int(self.fraction * num_examples))

    def _check_scores(self) -> None:
        roles = (self.learner, self.reference)
        if (self.scores is None) == all(path is None for path in roles):
            msg = (
                "scores: expected the SCORES of one model, or those of the learner, of "
                "the reference, or of both by these names"
            )
            raise ConfigError(msg)

    def _check_how_many(self) -> None:
        given = {
            name: getattr(self, name)
            for name in ("num_selected", "fraction", "threshold")
            if getattr(self, name) is not None
        }
        if len(given) > 1:
            named = ", ".join(f"{name}={value}" for name, value in given.items())
            msg = f"num_selected, fraction or threshold: one of them; got {named}"
            raise ConfigError(msg)
        if given and self.policy is None:
            msg = (
                f"policy: {next(iter(given))} needs one that says which examples; "
                "'uniform' draws at random"
            )
            raise ConfigError(msg)
        if not given and self.policy is not None:
            msg = "num_selected: a policy needs it, or a fraction, or a threshold"
            raise ConfigError(msg)
        if not given and self.where is None:
            msg = "policy: expected one, or a condition (where), or both; got neither"
            raise ConfigError(msg)
        if self.num_selected is not None and self.num_selected < 1:
            msg = f"num_selected: at least 1; got {self.num_selected}"
            raise ConfigError(msg)
        if self.threshold is not None and not math.isfinite(self.threshold):
            msg = f"threshold: a finite number; got {self.threshold}"
            raise ConfigError(msg)
        if self.fraction is not None and not 0 < self.fraction <= 1:
            msg = f"fraction: above 0, and at most 1; got {self.fraction}"
            raise ConfigError(msg)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SelectReport:
    """What was selected.

    Attributes:
        out: File of the subset.
        rows: File of its rows, where they were asked for.
        policy: Name and fields of the policy, where there was one.
        num_examples: How many have scores.
        num_candidates: How many of them meet the condition.
        num_selected: How many were selected.
        stats: What the policy says of it. ``num_quarantined`` candidates have a feature
            that is not finite. Over super-batches, counts of examples are summed, the
            rest is averaged.
        difference: How the subset differs from all that have scores.
        seconds: How long it took.
    """

    out: str
    rows: str | None
    policy: Mapping[str, object] | None
    num_examples: int
    num_candidates: int
    num_selected: int
    stats: Mapping[str, float]
    difference: Difference
    seconds: float
