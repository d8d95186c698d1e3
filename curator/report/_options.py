"""How much a report shows."""

from __future__ import annotations

import dataclasses

from curator.report._columns import Choice

__all__ = ["Options"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the user can choose of a report.

    Attributes:
        num_examples: How many examples of a kind are shown at most.
        choice: What he said of the pool's columns.
        threshold: Of the cosine above which two examples are near-duplicates.
    """

    num_examples: int = 8
    choice: Choice = dataclasses.field(default_factory=Choice)
    threshold: float = 0.95
