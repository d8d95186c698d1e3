"""Batches that carry what the reference says of their examples."""

import dataclasses

import numpy as np
import pytest
import towers
import worlds
from worlds import JOINT, UNIFORM, served

from curator.columns import column_to_numpy
from curator.errors import ConfigError

CARRIES = {"reference": "reference", "reference_outputs": ["embeddings"]}


@pytest.fixture(params=["local", "grpc"])
def kind(request):
    return request.param


def embeddings_by_id(tmp_path):
    """Returns the reference's embeddings of every example, by id."""
    spec = dataclasses.replace(UNIFORM, batch_size=200, super_batch_size=200, **CARRIES)
    with served(worlds.config(tmp_path / "all", s=spec), kind="local") as service:
        batch = next(service.open("s").batches())
        order = np.argsort(batch.ids)
        found = batch.reference_embeddings
        assert batch.ids[order].tolist() == list(range(200))
    return found.queries[order], found.targets[order], found


@pytest.mark.parametrize("spec", [UNIFORM, JOINT], ids=["uniform", "joint"])
def test_embeddings_are_those_of_the_batchs_own_rows(tmp_path, kind, spec):
    queries, targets, one = embeddings_by_id(tmp_path)
    spec = dataclasses.replace(spec, **CARRIES)
    model = towers.build(seed=5) if spec.needs_learner else None

    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        batches = worlds.train(session, 3, model=model)
        cost = session.describe().cost

    for batch in batches:
        found = batch.reference_embeddings
        np.testing.assert_array_equal(found.queries, queries[batch.ids])
        np.testing.assert_array_equal(found.targets, targets[batch.ids])
        assert found.logit_scale == one.logit_scale
        assert found.logit_bias == one.logit_bias
        np.testing.assert_array_equal(
            batch["reference.embeddings.queries"], found.queries
        )
        assert batch["number"].tolist() == batch.ids.tolist()
    # Also what was computed for delivery alone is in the account.
    assert cost["num_reference_scored"] >= 24


def test_columns_choose_among_them(tmp_path, kind):
    spec = dataclasses.replace(UNIFORM, **CARRIES)
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")
        assert next(session.batches(columns=["number"])).columns == ["number"]
        names = ["reference.embeddings.targets", "number"]
        batch = next(session.batches(columns=names))
        assert batch.columns == names
        assert batch.reference_embeddings is None
        assert next(session.batches(columns=[])).rows is None
        with pytest.raises(ConfigError, match=r"no columns \['reference.loss'\]"):
            next(session.batches(columns=["reference.loss"]))


def test_batches_without_them_have_none(tmp_path):
    with served(worlds.config(tmp_path, s=UNIFORM), kind="local") as service:
        batch = next(service.open("s").batches())

    assert batch.reference_embeddings is None
    assert "reference" not in "".join(batch.columns)


def test_an_output_that_the_reference_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"reference_outputs .* needs one"):
        dataclasses.replace(UNIFORM, reference_outputs=["loss"])
    spec = dataclasses.replace(
        UNIFORM, reference="reference", reference_outputs=["grad_norm"]
    )
    with (
        served(worlds.config(tmp_path, s=spec), kind="local") as service,
        pytest.raises(ConfigError, match=r"needs reference.grad_norm; .* embeddings"),
    ):
        service.open("s")


def test_scale_travels_with_the_columns(tmp_path):
    spec = dataclasses.replace(UNIFORM, **CARRIES)
    with served(worlds.config(tmp_path, s=spec), kind="grpc") as service:
        rows = next(service.open("s").batches()).rows

    field = rows.schema.field("reference.embeddings.targets")
    assert float(field.metadata[b"logit_scale"]) > 0
    assert column_to_numpy(rows.column(field.name)).dtype == np.float32
