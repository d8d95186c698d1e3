import dataclasses
import os
import tempfile
import threading
import time

import numpy as np
import ports
import pyarrow as pa
import pytest
import ray_worlds
import towers
import worlds
from ray_worlds import SESSION, config, kill, obeyed, order, scorers, served

from curator.engine import Registry
from curator.engine._executor import ScoringRequest
from curator.engine._ray_pairs import RayPairs
from curator.errors import ScoringError
from curator.policies import Joint
from curator.pools import MemoryPool
from curator.rng import Noise

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="session")
def pairs():
    return worlds.pairs(400)


@pytest.fixture(scope="session")
def arrow_file(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pool") / "pairs.arrow"
    with pa.ipc.new_file(path, pairs.schema) as writer:
        writer.write_table(pairs)
    return path


@pytest.fixture
def two_scorers(ray_cluster):
    return {
        "address": ray_cluster.address,
        "min_scorers": 2,
        "max_scorers": 2,
        "shard_size": 16,
    }


def wait_until(happened):
    """Waits for what other processes do, at most a minute."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)


def run(config, pool, num_steps=8, between=None, session="s"):
    """Trains; returns the batches and what they cost."""
    batches, model = [], towers.build()
    with served(config, pool) as service:
        trained = service.open(session)
        trained.publish(model)
        for batch in trained.batches():
            batches.append(batch)
            if between is not None:
                between(batch.step, service)
            worlds.nudge(model, batch.step)
            if batch.step % 3 == 2:
                trained.publish(model)
            trained.report(batch, loss=np.linspace(0, 1, len(batch)))
            if len(batches) == num_steps:
                break
        cost = service.describe(session).cost
    return batches, cost


@pytest.mark.parametrize("max_ahead", [0, 2])
def test_the_stream_is_that_of_one_process(
    tmp_path, two_scorers, arrow_file, max_ahead
):
    spec = dataclasses.replace(SESSION, max_ahead=max_ahead)
    here, _ = run(config(tmp_path, "local", s=spec), arrow_file)
    there, cost = run(config(tmp_path, "ray", ray=two_scorers, s=spec), arrow_file)
    worlds.assert_same_batches(here, there)
    assert ray_worlds.end(scorers(tmp_path))  # as the service did
    assert cost["num_learner_scored"] >= 8 * 64


def test_a_cluster_of_its_own_lasts_as_long_as_the_service(
    tmp_path, arrow_file, monkeypatch
):
    here, _ = run(config(tmp_path, "local"), arrow_file)
    own = {"address": "local", "min_scorers": 2, "max_scorers": 2}
    # Of a name that is short enough for Ray's sockets.
    with tempfile.TemporaryDirectory(
        prefix="r", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        there, cost = run(config(tmp_path, "ray", ray=own), arrow_file)
        worlds.assert_same_batches(here, there)
        assert cost["num_ray_restarts"] == 0
        assert ray_worlds.end(scorers(tmp_path))
        # No scorer and no driver leaves anything of its own behind.
        assert set(os.listdir(folder)) == {"ray", f"curator-{os.getuid()}"}


def test_rows_travel_where_the_pool_is_in_memory(tmp_path, two_scorers, pairs):
    here, _ = run(config(tmp_path, "local"), MemoryPool(pairs), 4)
    there, _ = run(config(tmp_path, "ray", ray=two_scorers), MemoryPool(pairs), 4)
    worlds.assert_same_batches(here, there)


@pytest.mark.parametrize("num_scorers", [1, 2])
def test_a_scorer_that_dies_at_work_changes_nothing(
    tmp_path, two_scorers, arrow_file, num_scorers
):
    here, _ = run(config(tmp_path, "local"), arrow_file)
    ray = {**two_scorers, "min_scorers": num_scorers, "max_scorers": num_scorers}

    def between(step, _):
        if step == 3:
            order(tmp_path, "die")

    there, cost = run(config(tmp_path, "ray", ray=ray), arrow_file, 8, between)
    worlds.assert_same_batches(here, there)
    assert obeyed(tmp_path, "die")
    if num_scorers == 1:
        assert cost["num_lost_scorers"] == 1
        assert cost["num_retried_shards"] >= 1
    else:  # the other one may have answered before its death was noticed
        assert cost["num_retried_shards"] >= 1 or cost["num_hedged_shards"] >= 1


def test_a_scorer_that_is_killed_while_it_waits_changes_nothing(
    tmp_path, two_scorers, arrow_file
):
    here, _ = run(config(tmp_path, "local"), arrow_file)

    def between(step, _):
        if step in (2, 5):
            kill(scorers(tmp_path)[0])

    there, _ = run(config(tmp_path, "ray", ray=two_scorers), arrow_file, 8, between)
    worlds.assert_same_batches(here, there)


def test_a_scorer_that_dies_while_nobody_waits_is_replaced_before_anybody_does(
    tmp_path, two_scorers, arrow_file
):
    with served(config(tmp_path, "ray", ray=two_scorers), arrow_file) as service:
        executor = service._transport._registry.open("s")._executor
        needs = frozenset({"reference.embeddings"})
        executor.submit(ScoringRequest(np.arange(64), needs, None)).result()
        wait_until(lambda: executor._process.call("num_ready", "s") == 2)
        first = scorers(tmp_path)
        for pid in first:
            kill(pid)

        wait_until(lambda: len(set(scorers(tmp_path)) - set(first)) == 2)


def test_a_scorer_that_hangs_is_replaced_after_its_deadline(
    tmp_path, two_scorers, arrow_file
):
    here, _ = run(config(tmp_path, "local"), arrow_file)
    ray = {**two_scorers, "deadline_seconds": 5.0, "min_scorers": 1, "max_scorers": 1}

    def between(step, _):
        if step == 3:
            order(tmp_path, "hang")

    there, cost = run(config(tmp_path, "ray", ray=ray), arrow_file, 8, between)
    worlds.assert_same_batches(here, there)
    assert obeyed(tmp_path, "hang")
    assert cost["num_lost_scorers"] == 1


def test_a_scorer_that_straggles_is_overtaken(tmp_path, two_scorers, arrow_file):
    here, _ = run(config(tmp_path, "local"), arrow_file)

    def between(step, _):
        if step == 3:
            order(tmp_path, "hang")

    # The deadline is a minute: only the second scorer can have answered.
    there, cost = run(config(tmp_path, "ray", ray=two_scorers), arrow_file, 8, between)
    worlds.assert_same_batches(here, there)
    assert obeyed(tmp_path, "hang")
    assert cost["num_hedged_shards"] >= 1
    assert cost.get("num_lost_scorers", 0) == 0


def test_a_driver_that_dies_is_replaced(tmp_path, two_scorers, arrow_file):
    here, _ = run(config(tmp_path, "local"), arrow_file)
    there_config = config(tmp_path, "ray", ray=two_scorers)

    def between(step, service):
        if step == 3:
            kill(service._transport._registry._executors._ray._process.pid)

    there, cost = run(there_config, arrow_file, 8, between)
    worlds.assert_same_batches(here, there)
    assert cost["num_ray_restarts"] == 1


def test_a_model_that_raises_on_one_example_fails_the_step_not_the_scorer(
    tmp_path, two_scorers, arrow_file
):
    ray = {**two_scorers, "min_scorers": 1, "max_scorers": 1}
    there = config(tmp_path, "ray", ray=ray, learner={"fail_on": 7})
    with pytest.raises(ScoringError, match="cannot score example 7"):
        run(there, arrow_file, 50)
    # It was said by the scorer that is there, not by a row of dead ones.
    assert len(list((tmp_path / "orders").glob("pid-*"))) == 1


def test_a_model_that_cannot_be_built_on_the_nodes_is_an_error(
    tmp_path, two_scorers, arrow_file
):
    there = config(tmp_path, "ray", ray=two_scorers, learner={"refuse": True})
    with pytest.raises(ScoringError, match=r"failed to start.*no such model on this"):
        run(there, arrow_file)


def test_no_node_with_room_is_an_error_not_a_hang(tmp_path, two_scorers, arrow_file):
    ray = {**two_scorers, "start_seconds": 1.0, "resources": {"tpu": 1.0}}
    with pytest.raises(ScoringError, match=r"no scorer for 1 seconds.*resources"):
        run(config(tmp_path, "ray", ray=ray), arrow_file)


def test_no_cluster_is_an_error_that_says_where_it_was_looked_for(
    tmp_path, two_scorers, arrow_file
):
    ray = {**two_scorers, "address": "127.0.0.1:1", "start_seconds": 0.1}
    with pytest.raises(ScoringError, match=r"no Ray cluster at.*127\.0\.0\.1:1"):
        run(config(tmp_path, "ray", ray=ray), arrow_file)


def test_late_scorers_are_replaced_by_a_uniform_draw_that_says_so(
    tmp_path, two_scorers, arrow_file
):
    spec = dataclasses.replace(SESSION, on_late="uniform", late_after_seconds=0.1)
    ray = {**two_scorers, "resources": {"tpu": 1.0}}
    batches, _ = run(config(tmp_path, "ray", ray=ray, s=spec), arrow_file, 2)
    assert [batch.late for batch in batches] == [True, True]


def test_scorers_may_start_after_the_service(
    tmp_path, two_scorers, arrow_file, ray_cluster
):
    here, _ = run(config(tmp_path, "local"), arrow_file, 4)
    ray = {**two_scorers, "resources": {"late": 0.5}}
    nodes = []

    with served(config(tmp_path, "ray", ray=ray), arrow_file) as service:
        session = service.open("s")
        node = ray_worlds.add_node(
            ray_cluster, **ray_worlds.NODE, resources={"late": 1}
        )
        try:
            there = worlds.train(session, 1, model=towers.build())
        finally:
            nodes.append(node)
    assert there[0].ids.tolist() == here[0].ids.tolist()
    ray_cluster.remove_node(nodes[0])


def test_a_node_that_dies_and_one_that_comes_change_nothing(
    tmp_path, two_scorers, arrow_file, ray_cluster
):
    here, _ = run(config(tmp_path, "local"), arrow_file)
    ray = {**two_scorers, "resources": {"spare": 0.5}}
    nodes = [
        ray_worlds.add_node(ray_cluster, **ray_worlds.NODE, resources={"spare": 1})
    ]

    def between(step, _):
        if step == 3:
            nodes.append(
                ray_worlds.add_node(
                    ray_cluster, **ray_worlds.NODE, resources={"spare": 1}
                )
            )
            node = nodes[0]
            for process in node.all_processes["raylet"]:
                kill(process.process.pid)

    there, cost = run(config(tmp_path, "ray", ray=ray), arrow_file, 8, between)
    worlds.assert_same_batches(here, there)
    assert cost["num_lost_scorers"] >= 1
    for node in nodes:
        ray_cluster.remove_node(node)


def test_a_head_that_dies_and_comes_back_changes_nothing(tmp_path, arrow_file):
    from ray.cluster_utils import Cluster

    here, _ = run(config(tmp_path, "local"), arrow_file)
    port = {"gcs_server_port": ports.free_port()}
    head = {**ray_worlds.NODE, **port, "include_dashboard": False}
    clusters = [Cluster(initialize_head=True, head_node_args=head)]
    ray = {"address": clusters[0].address, "min_scorers": 2, "shard_size": 16}

    def between(step, _):
        if step == 3:
            clusters[0].head_node.kill_all_processes(
                check_alive=False, allow_graceful=False, wait=True
            )
            clusters.append(Cluster(initialize_head=True, head_node_args=head))

    there, cost = run(config(tmp_path, "ray", ray=ray), arrow_file, 8, between)
    worlds.assert_same_batches(here, there)
    assert cost["num_ray_restarts"] >= 1
    clusters[-1].shutdown()


def test_pairs_that_stay_with_the_scorers_give_the_same_batches(tmp_path, two_scorers):
    pool = MemoryPool(worlds.pairs(6000))
    spec = dataclasses.replace(SESSION, super_batch_size=5000)
    here, _ = run(config(tmp_path, "local", s=spec), pool, 4)
    ray = {**two_scorers, "joint_shards": True}
    there, _ = run(config(tmp_path, "ray", ray=ray, s=spec), pool, 4)
    worlds.assert_same_batches(here, there)


def test_pairs_that_are_lost_in_the_middle_of_a_choice_are_made_again(
    tmp_path, two_scorers
):
    ray, ids = {**two_scorers, "joint_shards": True}, np.arange(5000)
    pool = MemoryPool(worlds.pairs(6000))
    registry = Registry(config(tmp_path, "ray", ray=ray), {"pairs": pool})
    needs = frozenset({"reference.embeddings"})
    policy, noise = Joint(score="easy_reference", num_chunks=4), Noise(0, 0)
    killed = []
    try:
        executor = registry.open("s")._executor
        plain = executor.submit(ScoringRequest(ids, needs, None)).result()
        kept = executor.submit(ScoringRequest(ids, needs, None, in_place=True)).result()
        pairs = kept.pairs
        assert isinstance(pairs, RayPairs)
        assert len(pairs.rows) == 2
        add = pairs.add

        def add_and_kill(rows):
            answer = add(rows)
            if not killed:
                killed.append(scorers(tmp_path)[0])
                kill(killed[0])
            return answer

        pairs.add = add_and_kill
        chosen = policy.select(ids, {"reference.embeddings": pairs}, 8, noise)
        expected = policy.select(ids, plain.features, 8, noise)
        assert killed
        assert chosen.indices.tolist() == expected.indices.tolist()
    finally:
        registry.close()
