"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, on a laptop as in CI; no time limit of an example.
settings.register_profile("project", derandomize=True, database=None, deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout these tests are part of, whichever curator is being tested."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def costs_of_few_candidates_wait() -> Iterator[None]:
    """They are added at once else, and small tests would test nothing of waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curator.scores._joint._MIN_WAITING", 40)
        yield
