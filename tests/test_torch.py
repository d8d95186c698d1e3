"""Sessions in PyTorch's data loading, where loaders look ahead."""

import dataclasses
import itertools
import json
import pickle  # noqa: TID251 - what torch does to states; nothing of ours reads it
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import towers
import worlds
from squares import Squares
from torch.utils.data import DataLoader
from worlds import IDS_ONLY, JOINT, UNIFORM, served

from curator.errors import FeedbackError, SessionError, StepNotReportedError
from curator.samplers import InfoBatch
from curator.torch import BatchSampler, IterableDataset, Loader

STEPS = dataclasses.replace(UNIFORM, num_steps=6)


def looking_ahead(loader):
    """Yields a loader's batches one late, as Accelerate's loaders do."""
    iterator = iter(loader)
    current = next(iterator)
    for upcoming in iterator:
        yield current
        current = upcoming
    yield current


@pytest.fixture
def service(tmp_path):
    sessions = {
        "s": STEPS,
        "ids": dataclasses.replace(IDS_ONLY, num_steps=6),
        "joint": JOINT,
        "endless": UNIFORM,
    }
    with served(worlds.config(tmp_path, **sessions)) as service:
        yield service


def test_a_loader_yields_every_batch_as_tensors(service):
    loader = Loader(service.open("s"))

    assert len(loader) == 6
    batches = list(loader)

    assert [batch.step for batch in batches] == list(range(6))
    assert all(isinstance(batch["image"], torch.Tensor) for batch in batches)
    assert len(loader) == 0


def test_an_endless_loader_has_no_length(service):
    with pytest.raises(TypeError, match=r"'endless' has no length: it is endless"):
        len(Loader(service.open("endless")))


@pytest.mark.parametrize("stop", range(1, 6))
def test_a_state_under_one_batch_look_ahead_repeats_and_loses_nothing(service, stop):
    session = service.open("s")
    loader = Loader(session)
    trained = []
    for batch in itertools.islice(looking_ahead(loader), stop):
        trained.append(batch.ids.tolist())
        session.report(batch)
    state = loader.state_dict()

    again = service.open("s")
    resumed = Loader(again)
    resumed.load_state_dict(json.loads(json.dumps(state)))
    rest = [batch.ids.tolist() for batch in resumed]

    reference = service.open("s")
    reference.load_state_dict({**state, "step": 0})
    assert trained + rest == [batch.ids.tolist() for batch in reference.batches()]


def test_a_state_is_small_and_survives_json_and_pickle(service):
    state = Loader(service.open("s")).state_dict()

    assert json.loads(json.dumps(state)) == state
    assert pickle.loads(pickle.dumps(state)) == state  # noqa: S301 - our own bytes
    assert len(json.dumps(state)) < 200


def trained(service, num_steps):
    """Returns the state of a trainer that has made some steps."""
    session = service.open("s")
    for batch, _ in zip(session.batches(), range(num_steps), strict=False):
        session.report(batch)
    return session.state_dict()


def test_a_state_is_loaded_before_or_after_iter(service):
    state = trained(service, 4)
    for load_first in (True, False):
        loader = Loader(service.open("s"))
        if load_first:
            loader.load_state_dict(state)
        iterator = iter(loader)
        if not load_first:
            loader.load_state_dict(state)
        assert [batch.step for batch in iterator] == [4, 5]


def test_set_epoch_does_not_move_a_resumed_position(service):
    state = trained(service, 4)
    loader = Loader(service.open("s"))
    loader.load_state_dict(state)

    loader.set_epoch(0)

    assert next(iter(loader)).step == 4


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_batch_sampler_drives_ones_own_dataset(service, num_workers):
    session = service.open("ids")
    loader = DataLoader(
        Squares(),
        batch_sampler=BatchSampler(session),
        num_workers=num_workers,
        multiprocessing_context="spawn" if num_workers else None,
    )

    seen = []
    for ids, squares in loader:
        assert torch.equal(squares, ids**2)
        session.report(ids, loss=squares.float())
        seen += ids.tolist()

    expected = service.open("ids")
    expected.load_state_dict({**expected.state_dict(), "step": 0})
    assert seen == np.concatenate([b.ids for b in expected.batches()]).tolist()
    assert service.describe("ids").next_step == 6


FORKED = """
import sys
import curator
import curator.torch
from squares import Squares
from torch.utils.data import DataLoader

config = {
    "server": {"state_dir": sys.argv[1]},
    "pools": {"ids": {"format": "virtual", "num_examples": 1000}},
}
spec = {"pool": "ids", "batch_size": 16, "num_steps": 20, "max_ahead": 4}
with curator.local(config) as service:
    session = service.open("s", spec)
    loader = DataLoader(
        Squares(),
        batch_sampler=curator.torch.BatchSampler(session),
        num_workers=2,
        multiprocessing_context="fork",
    )
    for ids, squares in loader:
        session.report(ids, loss=squares.float())
    print(session.describe().next_step)
"""


@pytest.mark.slow
def test_workers_may_be_forked_while_steps_are_defined(tmp_path):
    # A process of its own, in which nothing is loaded that the session's thread needs.
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout.split() == ["20"], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loop_that_is_left_loses_nothing_that_was_fetched_ahead(service, num_workers):
    session = service.open("ids")
    sampler = BatchSampler(session)
    loader = DataLoader(
        Squares(),
        batch_sampler=sampler,
        num_workers=num_workers,
        multiprocessing_context="spawn" if num_workers else None,
    )

    seen = []
    for _ in range(3):  # an evaluation after every other step
        for number, (ids, squares) in enumerate(loader, 1):
            session.report(ids, loss=squares.float())
            seen += ids.tolist()
            assert sampler.state_dict()["step"] == len(seen) // 8
            if number == 2:
                break

    expected = service.open("ids")
    expected.load_state_dict({**expected.state_dict(), "step": 0})
    assert seen == np.concatenate([b.ids for b in expected.batches()]).tolist()


def test_a_trainer_that_never_reports_goes_on_where_it_was(service):
    sampler = BatchSampler(service.open("ids"))

    first = list(itertools.islice(sampler, 2))
    then = list(sampler)

    expected = [batch.ids.tolist() for batch in service.open("ids").batches()]
    assert first + then == expected


def test_an_iterable_dataset_begins_with_what_is_not_reported(service):
    session = service.open("s")
    dataset = IterableDataset(session)

    for batch in itertools.islice(looking_ahead(dataset), 2):
        session.report(batch["example_id"])
    again = next(iter(dataset))

    assert again["step"] == 2


def test_weights_are_found_by_ids(tmp_path):
    spec = dataclasses.replace(
        IDS_ONLY, sampler=InfoBatch(anneal=0.0), num_epochs=2, max_ahead=4
    )
    with served(worlds.config(tmp_path, s=spec, plain=IDS_ONLY)) as service:
        session = service.open("s")
        weights, ids = [], None
        for batch in session.batches():
            ids = torch.from_numpy(batch.ids.copy())
            found = session.weights(ids)
            assert torch.equal(found, torch.from_numpy(batch.weights.copy()))
            np.testing.assert_array_equal(session.weights(batch.ids), batch.weights)
            session.report(ids, loss=ids.float() % 7)
            weights += found.tolist()
        with pytest.raises(FeedbackError, match="of no batch that waits for a report"):
            session.weights(ids)
        assert len(set(weights)) > 1

        session = service.open("plain")
        ids = next(iter(BatchSampler(session)))
        assert session.weights(ids).tolist() == [1.0] * 8


def test_workers_that_look_too_far_ahead_are_told(service):
    session = service.open("joint")
    session.publish(towers.build())
    sampler = iter(BatchSampler(session))
    next(sampler)

    with pytest.raises(
        StepNotReportedError, match=r"looks n batches ahead needs max_ah"
    ):
        next(sampler)


def test_an_iterable_dataset_fits_a_data_loader(service):
    session = service.open("s")
    loader = DataLoader(IterableDataset(session), batch_size=None)

    batches = list(loader)

    assert [batch["step"] for batch in batches] == list(range(6))
    for batch in batches:
        assert torch.equal(batch["example_id"], batch["number"])
        assert torch.equal(batch["weight"], torch.ones(8))


def test_an_iterable_dataset_refuses_loader_workers(tmp_path):
    class InWorker:
        id = 0

    dataset = IterableDataset.__new__(IterableDataset)
    torch.utils.data._utils.worker._worker_info = InWorker()
    try:
        with pytest.raises(SessionError, match=r"num_workers=0"):
            next(iter(dataset))
    finally:
        torch.utils.data._utils.worker._worker_info = None
