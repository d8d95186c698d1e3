"""Messages and domain values: each pair of functions is an identity."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curator import wire
from curator.config import SessionSpec
from curator.errors import ConfigError, FeatureError
from curator.policies import POLICIES as POLICIES_BY_NAME
from curator.policies import DomainQuota, Joint, TopK, Uniform
from curator.rpc.v1 import curation_pb2 as pb
from curator.samplers import RS2, InfoBatch, RePB, SeTa
from curator.sessions import SessionInfo


def options(cls, **fields):
    return st.tuples(st.just(cls), st.fixed_dictionaries(fields))


# Built in the tests, not by the strategies: the type checker that tests run under
# draws from the global generator, which strategies must not.
POLICIES = st.one_of(
    st.just((Uniform, {})),
    options(
        TopK,
        score=st.sampled_from(["learnability", "easy_reference", "hard_learner"]),
        loss=st.sampled_from(["sigmoid", "softmax"]),
    ),
    options(
        Joint,
        score=st.sampled_from(["learnability", "easy_reference", "hard_learner"]),
        loss=st.sampled_from(["sigmoid", "softmax"]),
        num_chunks=st.integers(1, 8),
        temperature=st.sampled_from([0.0, 0.2, 1.0]),
    ),
)


def specs():
    return st.fixed_dictionaries(
        {
            "pool": st.text("abc", min_size=1),
            "batch_size": st.integers(8, 64),
            "super_batch_size": st.integers(64, 1000),
            "seed": st.integers(-(2**63), 2**63 - 1),
            "policy": POLICIES,
            "learner": st.just("m"),
            "reference": st.just("m"),
            "max_ahead": st.integers(0, 5),
            "on_late": st.sampled_from(["wait", "uniform"]),
            "late_after_seconds": st.sampled_from([0.25, 10.0]),
            "publish_every": st.integers(1, 9),
            "num_steps": st.none() | st.integers(1, 2**40),
            "columns": st.none()
            | st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
            "num_epochs": st.none() | st.integers(1, 1000),
            "weighting": st.sampled_from(["sum", "mean"]),
            "reference_outputs": st.lists(st.just("embeddings"), max_size=1),
        }
    )


@hypothesis.given(specs())
@hypothesis.settings(max_examples=100, deadline=None)
def test_a_specification_survives_the_wire(fields):
    cls, arguments = fields.pop("policy")
    spec = SessionSpec(policy=cls(**arguments), **fields)
    message = pb.SessionSpec.FromString(wire.spec_to_proto(spec).SerializeToString())

    assert wire.spec_from_proto(message) == spec


@pytest.mark.parametrize("name", sorted(POLICIES_BY_NAME))
def test_every_policy_survives_the_wire(name):
    required = {"importance": {"backward_ratio": 1.5}}
    policy = POLICIES_BY_NAME[name](**required.get(name, {}))
    spec = SessionSpec(
        pool="p", batch_size=64, policy=policy, learner="m", reference="m"
    )

    assert wire.spec_from_proto(wire.spec_to_proto(spec)) == spec


@pytest.mark.parametrize(
    "sampler",
    [
        RS2(ratio=0.1, replace=True, stratify_by="label"),
        InfoBatch(),
        InfoBatch(prune_ratio=[0.75, 0.5], percentiles=[20.0, 85.0], anneal=0.0),
        RePB(),
        SeTa(),
    ],
    ids=repr,
)
def test_every_sampler_survives_the_wire(sampler):
    spec = SessionSpec(pool="p", batch_size=8, sampler=sampler, num_epochs=4)

    assert wire.spec_from_proto(wire.spec_to_proto(spec)) == spec


def test_a_domains_quotas_survive_the_wire():
    policy = DomainQuota(quotas={"web": 2.0, "books": 0.5}, score=None)
    spec = SessionSpec(pool="p", batch_size=8, policy=policy)

    assert wire.spec_from_proto(wire.spec_to_proto(spec)) == spec


def test_a_policy_message_without_fields_means_the_defaults():
    message = pb.SessionSpec(pool="p", batch_size=16, learner="m", reference="m")
    message.policy.name = "joint"

    assert wire.spec_from_proto(message).policy == Joint()


def test_a_wrong_specification_is_told_as_a_file_would_be():
    with pytest.raises(ConfigError, match=r"session.batch_size: missing"):
        wire.spec_from_proto(pb.SessionSpec(pool="p"))


def test_information_survives_the_wire():
    info = SessionInfo(
        name="s",
        spec=SessionSpec(pool="p", batch_size=8),
        fingerprint="f" * 16,
        num_examples=10**12,
        num_steps_per_epoch=3,
        num_steps=None,
        num_defined=2,
        next_step=1,
        needs_learner=False,
        needs_initial_snapshot=True,
        depends_on_losses=True,
        cost={
            "scoring_seconds": 0.5,
            "num_candidates": 16.0,
            "num_lost_scorers": 2.0,
            "unknown": 1.0,
        },
    )

    again = wire.info_from_proto(wire.info_to_proto(info))

    assert again.cost["scoring_seconds"] == 0.5
    assert again.cost["num_candidates"] == 16
    assert again.cost["num_late"] == 0
    assert again.cost["num_lost_scorers"] == 2
    assert again.name == info.name
    assert again.spec == info.spec
    assert (again.num_examples, again.next_step) == (10**12, 1)
    assert again.needs_initial_snapshot
    assert again.depends_on_losses
    assert again.num_steps is None
    assert not again.needs_learner


@hypothesis.given(hnp.arrays(np.int64, st.integers(0, 20)))
@hypothesis.settings(max_examples=50, deadline=None)
def test_ids_survive_the_wire(ids):
    np.testing.assert_array_equal(wire.ids_from_proto(wire.ids_to_proto(ids)), ids)


def test_bytes_that_are_no_ids_are_refused():
    with pytest.raises(FeatureError, match=r"9 bytes is not a whole number of 8-byte"):
        wire.ids_from_proto(b"123456789")
