"""A sampler that another process has, and this one has not."""

from __future__ import annotations

import dataclasses
from typing import NoReturn

from curator.components import Foreign

__all__ = ["ForeignSampler"]


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignSampler(Foreign):
    """See :class:`curator.components.Foreign`."""

    @property
    def columns(self) -> frozenset[str]:
        """Not known."""
        return frozenset()

    def start(self, *_: object, **__: object) -> NoReturn:
        """Raises ``ConfigError``: it cannot sample here."""
        raise self.error()
