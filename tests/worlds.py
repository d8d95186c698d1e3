"""Pools, configurations and services that tests share. Everything in it is real."""

import contextlib
import dataclasses
import unittest.mock

import numpy as np
import pyarrow as pa

from curator import Config, ModelSpec, PoolSpec, ServerSpec, SessionSpec, wire
from curator.client import Service, connect
from curator.client._local import LocalTransport
from curator.engine import Registry
from curator.policies import Joint, TopK
from curator.pools import MemoryPool
from curator.rpc.v1 import curation_pb2 as pb
from curator.service import Server

NUM_EXAMPLES = 200
COLUMNS = ["image", "text", "number"]

JOINT = SessionSpec(
    pool="pairs",
    batch_size=8,
    super_batch_size=24,
    seed=3,
    policy=Joint(num_chunks=4),
    learner="learner",
    reference="reference",
)
TOPK = dataclasses.replace(JOINT, policy=TopK(loss="sigmoid"))
UNIFORM = SessionSpec(pool="pairs", batch_size=8, seed=3)
IDS_ONLY = SessionSpec(pool="ids", batch_size=8, seed=3)


def pairs(num_examples=NUM_EXAMPLES, seed=0):
    """Returns a table of pairs whose two sides resemble each other."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((num_examples, 4)).astype(np.float32)
    text = image + 0.3 * rng.standard_normal((num_examples, 4)).astype(np.float32)
    return pa.table(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(image),
            "text": pa.FixedShapeTensorArray.from_numpy_ndarray(text),
            "number": np.arange(num_examples),
            "caption": [f"pair {i}" for i in range(num_examples)],
        }
    )


def config(state_dir, *, learner=None, reference=None, server=None, **sessions):
    """Returns a configuration with the pools ``pairs`` and ``ids``.

    Args:
        state_dir: Where state lives.
        learner: Keys of the learner's model, over the defaults.
        reference: Keys of the reference model.
        server: Keys of the server.
        sessions: Specifications by name.
    """
    model = ModelSpec(factory="towers:build", columns=COLUMNS, micro_batch_size=16)
    return Config(
        server=dataclasses.replace(
            ServerSpec(state_dir=str(state_dir), listen="127.0.0.1:0"), **(server or {})
        ),
        pools={"ids": PoolSpec(format="virtual", num_examples=1000)},
        models={
            # Without weights, a learner starts from what is published first.
            "learner": dataclasses.replace(model, **(learner or {})),
            "reference": dataclasses.replace(
                model, **{"args": {"seed": 7}, **(reference or {})}
            ),
        },
        sessions=sessions,
    )


@contextlib.contextmanager
def served(config, *, kind="grpc", pool=None, **arguments):
    """Yields a service: in this process, or over gRPC from a server in it.

    Args:
        config: What to serve.
        kind: ``local`` for none, ``grpc`` for a server, and ``remote`` for one that
            takes its client to be on another machine.
        pool: The pool ``pairs``.
        arguments: Of ``connect``.
    """
    pools = {"pairs": pool or MemoryPool(pairs())}
    registry = Registry(config, pools)
    if kind == "local":
        with Service(LocalTransport(registry)) as service:
            yield service
        return
    try:
        server = Server(registry)
        try:
            with contextlib.ExitStack() as stack:
                if kind == "remote":
                    patch, none = unittest.mock.patch.object, pb.UnixSocket()
                    stack.enter_context(patch(wire.UnixListener, "offer", none))
                yield stack.enter_context(connect(server.address, **arguments))
        finally:
            server.stop(grace_seconds=0.0)
    finally:
        registry.close()


def train(session, num_steps, *, model=None, losses=True, **arguments):
    """Trains on some batches; returns them. The model changes a little at each step."""
    batches = []
    if model is not None:
        session.publish(model)
    for batch in session.batches(**arguments):
        batches.append(batch)
        if model is not None:
            nudge(model, batch.step)
            session.publish(model)
        loss = np.linspace(0, 1, len(batch)) if losses else None
        session.report(batch, loss=loss)
        if len(batches) == num_steps:
            break
    return batches


def nudge(model, step):
    """Changes a model as a function of the step alone."""
    import torch

    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.3 * noise


def assert_same_batches(ours, theirs):
    """Asserts that two lists of batches are equal in everything that they say."""
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.step, a.epoch, a.snapshot_step, a.late) == (
            b.step,
            b.epoch,
            b.snapshot_step,
            b.late,
        )
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.weights, b.weights)
        assert (a.rows is None) == (b.rows is None)
        if a.rows is not None:
            assert a.rows.equals(b.rows)
