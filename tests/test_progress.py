"""How far long computations are."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import numpy as np
import pytest
from pair_worlds import unit

from curator import progress
from curator.policies import Dedup, Density, FacilityLocation, KCenter, LogDet, Policy
from curator.progress import LOGGER, Progress
from curator.rng import Noise
from curator.samplers import b3_plan

ROWS = unit(np.random.default_rng(0).standard_normal((1500, 8))).astype(np.float32)


@pytest.fixture
def messages(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[], list[str]]:
    """What is said, at every step."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.0)
    caplog.set_level(logging.INFO, LOGGER)
    return lambda: [r.getMessage() for r in caplog.records if r.name == LOGGER]


def test_what_is_counted_is_told(messages: Callable[[], list[str]]) -> None:
    with Progress("a", 4000, "examples") as made:
        made.advance(1000)
        made.advance(3000)

    first, second, end = messages()
    assert re.fullmatch(r"a: 25 % of 4,000 examples, \d+ s left", first)
    assert re.fullmatch(r"a: 100 % of 4,000 examples, 0 s left", second)
    assert re.fullmatch(r"a: 4,000 examples done in \d+ s", end)


def test_of_what_is_uneven_it_is_not_foretold_how_long_the_rest_takes(
    messages: Callable[[], list[str]],
) -> None:
    with Progress("a", 4, "choices", is_even=False) as made:
        made.advance(1)

    assert messages()[0] == "a: 25 % of 4 choices"


def test_a_failure_is_not_told_as_an_end(messages: Callable[[], list[str]]) -> None:
    def fail() -> None:
        with Progress("a", 2_000_000_000) as made:
            made.advance(500_000_000)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    (said,) = messages()
    assert re.fullmatch(r"a: 25 % of 2\.00 GB, \d+ MB/s, \d+ s left", said)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (KCenter(), {"kcenter: 20 choices"}),
        (LogDet(), {"logdet: 20 choices"}),
        (Density(), {"density: 1,500 examples"}),
        (Dedup(num_clusters=9), {"k-means: 20 rounds"}),
        (
            FacilityLocation(),
            {
                "facility_location: cosines: 1,125,750 pairs",
                "facility_location: 20 choices",
            },
        ),
    ],
)
def test_policies_that_take_long_say_how_far_they_are(
    messages: Callable[[], list[str]], policy: Policy, told: set[str]
) -> None:
    features = dict.fromkeys(policy.needs, ROWS)

    policy.select(np.arange(len(ROWS)), features, 20, Noise(seed=0, step=0))

    ends = {
        said.rpartition(" done in ")[0] for said in messages() if " done in " in said
    }
    assert ends == told


def test_batch_plans_say_how_far_they_are(messages: Callable[[], list[str]]) -> None:
    b3_plan(ROWS, ROWS, batch_size=32, skip=2, window=9, partitioner="numpy")

    (end,) = [message for message in messages() if " done in " in message]
    assert end.startswith("b3: neighbours: 1,500 examples done in ")
