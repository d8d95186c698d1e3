"""Sessions whose candidates are planned from losses, opened again at an epoch's end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import worlds
from worlds import IDS_ONLY

from curator import Config
from curator.engine import Registry, SessionEngine
from curator.pools import MemoryPool
from curator.samplers import InfoBatch
from curator.samplers._infobatch import InfoBatchPlanner

SPEC = dataclasses.replace(
    IDS_ONLY, sampler=InfoBatch(anneal=0.0), num_epochs=3, max_ahead=0
)


@contextlib.contextmanager
def opened(config: Config) -> Generator[SessionEngine]:
    registry = Registry(config, {"pairs": MemoryPool(worlds.pairs())})
    try:
        yield registry.open("s")
    finally:
        registry.close()


def report(engine: SessionEngine, step: int) -> None:
    ids = engine.record(step).result().ids
    losses = np.linspace(0, 1, len(ids), dtype=np.float32)
    engine.report(step, 0, 1, ids, losses)


def test_a_plan_that_fails_after_a_restart_is_told_to_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = worlds.config(tmp_path, s=SPEC)
    with opened(config) as engine:
        report(engine, 0)

    def plan(*_: object) -> None:
        msg = "a fault of its own"
        raise RuntimeError(msg)

    monkeypatch.setattr(InfoBatchPlanner, "plan", plan)
    with opened(config) as engine, pytest.raises(RuntimeError, match="of its own"):
        engine.record(100).result(timeout=30.0)


@pytest.mark.parametrize("before", [0, 1])
def test_the_next_epoch_waits_for_the_report_that_is_missing(
    tmp_path: Path, before: int
) -> None:
    """Nobody but the trainer that was cut off has asked for anything meanwhile."""
    config = worlds.config(tmp_path, s=SPEC)
    end = 0
    with opened(config) as engine:
        for epoch in range(before + 1):
            first, num_steps = engine.epoch(engine.epoch(0)[1] * epoch)
            end = first + num_steps
            for step in range(first, end - (epoch == before)):
                report(engine, step)
        engine.record(end - 1).result()  # defined, and not reported

    with opened(config) as engine:
        later = engine.record(end)
        assert not later.done()
        report(engine, end - 1)
        assert later.result(timeout=30.0).step == end
