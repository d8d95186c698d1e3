"""What the tests of this folder start from: a ledger, and where it lies."""

from __future__ import annotations

import contextlib

import pytest

from curator.ledger import Ledger


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with contextlib.closing(Ledger(path)) as ledger:
        yield ledger
