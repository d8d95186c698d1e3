"""A session that would hold more memory than it may is told so, and others go on."""

import dataclasses
import threading

import numpy as np
import pytest
import towers
import worlds
from worlds import IDS_ONLY, JOINT, UNIFORM, served, train

from curator.config import SessionSpec
from curator.engine._memory_limit import MemoryLimit
from curator.errors import LimitError
from curator.policies import TopK
from curator.samplers import InfoBatch

TRAINER = SessionSpec(
    pool="ids",
    batch_size=8,
    super_batch_size=64,
    policy=TopK(score="loss"),
    features="trainer",
)


def config(tmp_path, max_bytes, **sessions):
    server = {"max_session_bytes": max_bytes}
    return worlds.config(tmp_path, server=server, **sessions)


def test_features_of_candidates_count(tmp_path):
    # Two models, two sides of 24 candidates; up to three super-batches at a time.
    with served(config(tmp_path, 1_000, s=JOINT, u=IDS_ONLY)) as service:
        session = service.open("s")
        session.publish(towers.build())
        with pytest.raises(
            LimitError,
            match=r"'s' would hold .* MB of features of candidates\), over the limit "
            r"of 1,000: raise server.max_session_bytes",
        ):
            next(session.batches())
        assert len(train(service.open("u"), 3)) == 3


def test_batches_on_their_way_count(tmp_path):
    size = 8 * (4 * 4 + 4 * 4 + 8)  # without what Arrow adds
    with served(config(tmp_path, size, s=UNIFORM)) as service:
        batches = service.open("s").batches(columns=["image", "text", "number"])
        with pytest.raises(LimitError, match=r"MB of batches on their way"):
            next(batches)
        assert len(next(service.open("s").batches(columns=[]))) == 8


def test_features_of_a_trainer_count(tmp_path):
    with served(config(tmp_path, 64 * 4, s=TRAINER)) as service:
        session = service.open("s")
        candidates = next(session.super_batches())
        with pytest.raises(LimitError, match=r"MB of features that a trainer sent"):
            session.select(candidates, learner=np.zeros(64, np.float32))


def test_what_a_sampler_knows_counts_from_the_start(tmp_path):
    spec = dataclasses.replace(IDS_ONLY, sampler=InfoBatch(), num_epochs=8)
    with (
        served(config(tmp_path, 3_999, s=spec)) as service,
        pytest.raises(LimitError, match=r"0.0 MB of what the sampler knows"),
    ):
        service.open("s")  # 1000 losses of float32


def test_enough_is_enough(tmp_path):
    with served(config(tmp_path, 100_000, s=JOINT, t=TRAINER)) as service:
        session = service.open("s")
        assert len(train(session, 5, model=towers.build())) == 5
        session = service.open("t")
        for candidates, _ in zip(session.super_batches(), range(40), strict=False):
            losses = np.arange(64, dtype=np.float32)
            session.report(session.select(candidates, learner=losses))


def test_what_is_let_go_of_makes_room():
    limit = MemoryLimit("s", 10)
    limit.take("a table", 4)
    message = r"11 bytes .*of batches.*of a table"
    with limit.hold("batches", 6), pytest.raises(LimitError, match=message):
        limit.take("batches", 1)
    with limit.hold("batches", 6), pytest.raises(LimitError), limit.hold("more", 1):
        pass
    with pytest.raises(KeyError), limit.hold("batches", 6):
        raise KeyError
    with limit.hold("batches", 6):
        pass


def test_threads_count_together():
    limit, ready = MemoryLimit("s", 400), threading.Barrier(4)

    def work():
        ready.wait()
        for _ in range(500):
            with limit.hold("batches", 100):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with limit.hold("batches", 400):
        pass
