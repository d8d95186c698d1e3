"""A short run of ``benchmarks.crash``: processes die, and the stream stays the same."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.crash_process import Kill, Server
from benchmarks.crash_scenes import (
    differences,
    failpoints_of,
    kill_randomly,
    play,
    train,
)
from benchmarks.crash_stream import uninterrupted
from benchmarks.crash_worlds import WORLDS, write_pool, write_world
from curator.policies import POLICIES
from curator.samplers import SAMPLERS

pytestmark = pytest.mark.slow

# The rest of these is left to the benchmark: a model takes seconds to load.
SCORED = [
    "feature.put:before",
    "os.pwrite:torn",
    "os.replace:after",
    "ledger.snapshot:before",
]


@pytest.fixture
def data(tmp_path):
    """A folder with the pool of all worlds."""
    write_pool(tmp_path)
    return tmp_path


def at(*places):
    """Returns a kill at the first call of each place, one process after the other."""
    return [Kill(10_000, 0.0, f"{place}:1") for place in places]


def test_every_sampler_and_policy_has_a_world():
    specs = [world.spec for world in WORLDS.values()]

    assert {spec.sampler.name for spec in specs} == set(SAMPLERS)
    on_server = {spec.policy.name for spec in specs if spec.features == "server"}
    assert on_server == set(POLICIES)


def test_a_server_that_dies_in_each_write_goes_on_with_the_same_stream(data):
    world = WORLDS["sampler infobatch"]
    places = ["ledger.meta:before", "ledger.meta:after", *failpoints_of(world)]

    outcome = play("server", world, data, data / "run", at(*places))

    assert [death.kind for death in outcome.deaths] == places
    assert outcome.mismatches == []
    assert outcome.num_steps == 48


def test_a_server_that_scores_and_dies_goes_on_with_the_same_stream(data):
    world = WORLDS["topk, two models"]

    outcome = play("server", world, data, data / "run", at(*SCORED))

    assert [death.kind for death in outcome.deaths] == SCORED
    assert outcome.mismatches == []


@pytest.mark.parametrize(
    ("scene", "name"), [("server", "joint, trainer"), ("elastic", "topk, table")]
)
def test_a_server_killed_at_random_goes_on_with_the_same_stream(data, scene, name):
    rng = np.random.default_rng(11)
    kills = [kill_randomly(rng) for _ in range(6)]

    outcome = play(scene, WORLDS[name], data, data / "run", kills)

    assert len(outcome.deaths) == 6
    assert outcome.mismatches == []


def test_a_trainer_killed_at_random_goes_on_from_its_checkpoint(data):
    rng = np.random.default_rng(12)
    kills = [kill_randomly(rng) for _ in range(2)]

    outcome = play("client", WORLDS["sampler seta"], data, data / "run", [], kills)

    assert outcome.num_clients_killed == 2
    assert outcome.mismatches == []


def test_a_rank_killed_at_random_goes_on_from_its_checkpoint(data):
    kills = [kill_randomly(np.random.default_rng(13))]

    outcome = play("ranks", WORLDS["stratified, table"], data, data / "run", [], kills)

    assert outcome.num_clients_killed == 1
    assert outcome.mismatches == []


def test_a_clock_that_jumps_by_hours_changes_nothing(data):
    world = WORLDS["softmax, table"]
    world = world.with_session(on_late="uniform", late_after_seconds=60.0)
    expected = uninterrupted(world, data, data / "whole")

    config = write_world(world, data, data / "jumping")
    with Server(config, variables={"CURATOR_CLOCK_HOURS": "5"}) as server:
        found = list(train(world, server))

    assert len(found) == 48
    assert differences(expected, found) == []
