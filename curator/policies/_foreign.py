"""A policy that another process has, and this one has not."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from curator.components import Foreign

__all__ = ["ForeignPolicy"]


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignPolicy(Foreign):
    """See :class:`curator.components.Foreign`.

    Attributes:
        needs: What it reads.
    """

    needs: frozenset[str]

    def select(self, *_: object, **__: object) -> NoReturn:
        """Raises ``ConfigError``: it cannot select here."""
        raise self.error()
