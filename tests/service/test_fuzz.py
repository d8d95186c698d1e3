"""Hostile inputs: every call ends with a status, and none of them is our mistake."""

from __future__ import annotations

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import curator
from benchmarks.fuzz_calls import Caller, send_all
from benchmarks.fuzz_inputs import METHODS, hostile, make_input
from benchmarks.fuzz_payloads import hostile_arrow, hostile_weights
from benchmarks.fuzz_world import HEALTHY, look_around, tables, to_toml, write_pool
from benchmarks.server_process import ServerProcess
from curator import wire
from curator.errors import ConfigError, CuratorError, FeatureError, SnapshotError
from curator.models import weights_to_bytes
from curator.models._header import check_fit
from curator.rpc.v1 import curation_pb2 as pb

NUM_INPUTS = 2_000
PROPERTY = hypothesis.settings(max_examples=100, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture
def server(tmp_path):
    """Yields a server of the fuzzed sessions.

    In a process of its own: here, the shapes that annotations promise are checked, and
    what a client sends would fail at those before it is refused.
    """
    write_pool(tmp_path / "pairs.arrow")
    config = tmp_path / "server.toml"
    config.write_text(to_toml(tables(tmp_path)))
    with ServerProcess(config, tmp_path / "server.log") as server:
        yield server


@pytest.mark.slow
def test_hostile_inputs_are_answered_and_a_healthy_client_goes_on(server):
    with curator.connect(server.address) as service:
        world = look_around(service)
        healthy = service.open(HEALTHY)
        batches = healthy.batches()
        first = next(batches)

        with Caller(server.address) as caller:
            outcome = send_all(caller, world, 0, range(NUM_INPUTS), num_threads=4)

        healthy.report(first)
        assert next(batches).step == 1
        assert healthy.describe().next_step == 1
    assert server.stop()  # no call is left that never ends
    assert sum(outcome.codes.values()) == NUM_INPUTS
    assert {rpc for rpc, _ in outcome.codes} == set(METHODS)
    assert [
        (*key, finding.number) for key, finding in sorted(outcome.findings.items())
    ] == []


def test_an_input_is_a_function_of_seed_and_number(tmp_path):
    write_pool(tmp_path / "pairs.arrow")
    with curator.local(tables(tmp_path)) as service:
        world = look_around(service)

    for number in range(50):
        assert make_input(world, 3, number) == make_input(world, 3, number)


@hypothesis.given(SEEDS)
@PROPERTY
def test_a_hostile_specification_is_read_or_refused(seed):
    message = hostile(pb.SessionSpec(), np.random.default_rng(seed))
    message.pool, message.batch_size = message.pool or "p", message.batch_size or 8
    try:
        spec = wire.spec_from_proto(message)
    except CuratorError:
        return
    assert wire.spec_from_proto(wire.spec_to_proto(spec)) == spec


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_of_a_specification_have_to_be_finite(number):
    message = pb.SessionSpec(pool="p", batch_size=8, policy=pb.Component(name="topk"))
    message.policy.fields["beta"] = number

    with pytest.raises(ConfigError, match=r"'topk': every number must be finite"):
        wire.spec_from_proto(message)


def test_an_unknown_enumeration_value_is_the_clients_mistake():
    message = pb.SessionSpec(pool="p", batch_size=8)
    message.MergeFromString(b"\x48\x09")  # features = 9

    with pytest.raises(ConfigError, match=r"unknown enumeration value 9; known: .*1"):
        wire.spec_from_proto(message)


@hypothesis.given(SEEDS, st.sampled_from(["topk", "joint", "uds"]))
@PROPERTY
def test_hostile_rows_become_features_or_an_error_of_the_clients(seed, session):
    rng = np.random.default_rng(seed)
    payload = hostile_arrow(session, 24, rng)
    try:
        rows = wire.rows_from_bytes(payload, trusted=False)
        features = wire.features_from_wire(rows, pb.SelectStart())
    except FeatureError:
        return
    for feature in features.values():
        arrays = feature if isinstance(feature, np.ndarray) else feature.queries
        assert len(arrays) == rows.num_rows


@hypothesis.given(st.binary(max_size=100))
@PROPERTY
def test_any_bytes_are_numbers_or_an_error_of_the_clients(data):
    for parse, size in ((wire.ids_from_proto, 8), (wire.floats_from_proto, 4)):
        if len(data) % size:
            with pytest.raises(FeatureError, match="not a whole number"):
                parse(data)
        else:
            assert parse(data).tobytes() == data


def test_hostile_weights_fit_or_are_refused(tmp_path):
    arrays = {"image.weight": np.ones((3, 4), np.float32)}
    expected = {"image.weight": ("F32", (3, 4))}
    weights = weights_to_bytes(arrays)
    path = tmp_path / "weights"
    refused = 0

    for seed in range(300):
        path.write_bytes(hostile_weights(weights, np.random.default_rng(seed)))
        try:
            check_fit(path, expected, "learner")
        except SnapshotError:
            refused += 1

    assert refused > 150
