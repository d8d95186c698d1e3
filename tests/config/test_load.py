"""Configuration: what is accepted, and what each mistake is told."""

import dataclasses
import math

import pytest

import curator
from curator.config import parse_config, parse_session, session_to_table
from curator.errors import ConfigError
from curator.policies import Joint, TopK, Uniform

SESSION = {"pool": "p", "batch_size": 8}
JOINT = {"name": "joint", "num_chunks": 4}
MODEL = {"factory": "towers:build", "columns": ["x"]}


def whole(**session):
    return {
        "pools": {"p": {"format": "virtual", "num_examples": 100}},
        "models": {"m": MODEL},
        "sessions": {"s": {**SESSION, **session}},
    }


def on_ray(**ray):
    return {"server": {"executor": "ray"}, "ray": ray}


def test_more_scorers_at_least_means_more_at_most():
    assert parse_config(on_ray(min_scorers=3)).ray.max_scorers == 3
    assert parse_config(on_ray()).ray.max_scorers == 1


def test_a_file_is_read_and_its_paths_are_relative_to_it(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(
        """
        [server]
        state_dir = "state"
        python_path = ["code"]
        listen = "unix:run/socket"

        [pools.p]
        format = "parquet"
        path = "data/*.parquet"

        [models.m]
        factory = "towers:build"
        columns = ["image"]
        weights = "/elsewhere/m.safetensors"
        args = { width = 8 }

        [sessions.s]
        pool = "p"
        batch_size = 8
        super_batch_size = 32
        policy = { name = "joint", num_chunks = 4, temperature = 0.5 }
        learner = "m"
        reference = "m"
        """
    )

    config = curator.load_config(path)

    assert config.server.state_dir == str(tmp_path / "state")
    assert config.server.python_path == [str(tmp_path / "code")]
    assert config.server.listen == f"unix:{tmp_path / 'run/socket'}"
    assert config.pools["p"].path == str(tmp_path / "data/*.parquet")
    assert config.models["m"].weights == "/elsewhere/m.safetensors"
    assert config.models["m"].args == {"width": 8}
    session = config.sessions["s"]
    assert session.policy == Joint(num_chunks=4, temperature=0.5)
    assert session.needs_learner


def test_the_super_batch_is_the_batch_by_default():
    assert parse_session(SESSION).super_batch_size == 8


@pytest.mark.parametrize("policy", ["uniform", {"name": "uniform"}])
def test_a_policy_is_a_name_or_a_table(policy):
    assert parse_session({**SESSION, "policy": policy}).policy == Uniform()


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"num_steps": 5, "seed": -3, "columns": []},
        {"policy": {"name": "topk", "loss": "scalar"}, "features": "trainer"},
        {
            "policy": {"name": "joint", "num_chunks": 2},
            "learner": "m",
            "reference": "m",
            "max_ahead": 2,
            "on_late": "uniform",
            "late_after_seconds": 0.25,
            "publish_every": 4,
        },
    ],
)
def test_a_session_survives_its_table(extra):
    spec = parse_session({**SESSION, **extra})

    assert parse_session(session_to_table(spec)) == spec


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"severs": {}}, r"unknown key 'severs'.*Known: models, pools, ray, serv"),
        ({"server": {"port": 1}}, r"unknown key 'server.port'"),
        ({"server": {"listen": 1}}, r"server.listen: expected a valid string; got 1"),
        (
            {"server": {"tokens": {"trainer": "a secret"}}},
            r"server.tokens.trainer: expected a table; got a str$",
        ),
        (
            {"sessions": {"s": {"pool": "p", "batch_size": 2, "columns": ["a", "a"]}}},
            r"sessions.s.columns: each one once; got 'a' twice or more",
        ),
        ({"server": {"state_dir": ""}}, r"server.state_dir: the path of a fol.*got ''"),
        (
            {"server": {"state_dir": "s3://b/c"}},
            r"on this machine; got 's3://b/c' \(`c",
        ),
        ({"server": {"listen": "here"}}, r"server.listen: expected 'HOST:PORT'.*here"),
        ({"server": {"listen": "::1:50051"}}, r"expected 'HOST:PORT'.*'\[::1\]:50051'"),
        (
            {"server": {"executor": "dask"}},
            r"server.executor: .*'local'.*'ray'.*'dask'",
        ),
        (
            {"server": {"metrics": "9464"}},
            r"server.metrics: expected 'HOST:PORT'.*9464",
        ),
        (
            {"server": {"max_message_bytes": 2 << 20}},
            r"server.max_message_bytes: at least 4 MiB.*got 2097152",
        ),
        ({"ray": {}}, r"ray: this table needs server.executor = 'ray'"),
        (on_ray(scorers=1), r"unknown key 'ray.scorers' \(did you mean 'min_scorers'"),
        (on_ray(min_scorers=0), r"ray.min_scorers: at least 1; got 0"),
        (on_ray(address="head"), r"ray.address: expected 'HOST:PORT' of .*got 'head'"),
        (on_ray(address=""), r"ray.address: expected 'HOST:PORT' .*; got ''"),
        (on_ray(address="ray://head:10001"), r"ray.address: .*got 'ray://head:10001'"),
        (
            on_ray(min_scorers=4, max_scorers=2),
            r"ray.max_scorers: at least 4 \(min_scorers\); got 2",
        ),
        (on_ray(num_cpus=-1), r"ray.num_cpus: at least 0; got -1"),
        (
            on_ray(num_gpus=1.5),
            r"ray.num_gpus: a whole number, or a part of one.*1.5",
        ),
        (on_ray(shard_size=0), r"ray.shard_size: at least 1; got 0"),
        (on_ray(deadline_seconds=0), r"ray.deadline_seconds: above 0; got 0"),
        (on_ray(start_seconds=math.inf), r"ray.start_seconds: above 0; got inf"),
        (on_ray(resources={"tpu": 0}), r"ray.resources.tpu: above 0; got 0"),
        ({"server": []}, r"server: expected a table; got \[\]"),
        ({"pools": {"p": {"format": "xlsx"}}}, r"pools.p.format: .*'parquet'.*'xlsx'"),
        ({"pools": {"p": {"format": "arrow"}}}, r"pools.p.path: .* needs one"),
        (
            {"pools": {"p": {"format": "virtual"}}},
            r"pools.p.num_examples: a virtual pool needs it",
        ),
        (
            {"pools": {"p": {"format": "arrow", "path": "x", "cache_bytes": 1}}},
            r"pools.p.cache_bytes: .* only for format 'parquet'",
        ),
        ({"models": {"m": {"factory": "f"}}}, r"models.m.columns: missing"),
        (
            {"models": {"m": {"factory": "f", "columns": ["x"]}}},
            r"models.m.factory: expected 'package.module:function'; got 'f'",
        ),
        (whole(batchsize=1), r"'sessions.s.batchsize' \(did you mean 'batch_size'\?\)"),
        (whole(batch_size="8"), r"sessions.s.batch_size: .*integer; got '8'"),
        (whole(batch_size=True), r"sessions.s.batch_size: .*integer; got True"),
        (whole(batch_size=0), r"sessions.s.batch_size: at least 1; got 0"),
        (whole(super_batch_size=4), r"super_batch_size: at least 8 .*; got 4"),
        (whole(max_ahead=-1), r"max_ahead: at least 0; got -1"),
        (whole(seed=2**63), r"seed: a 64-bit integer"),
        (whole(late_after_seconds=0), r"late_after_seconds: above 0"),
        (whole(on_late="skip"), r"sessions.s.on_late: .*'wait'.*'uniform'.*'skip'"),
        (
            whole(sampler={"name": "rs1"}),
            r"s.sampler.name: unknown sampler 'rs1'.*uniform",
        ),
        (whole(sampler="unifrm"), r"sampler.name: unknown .*did you mean 'uniform'"),
        (whole(sampler={"name": "uniform", "k": 1}), r"unknown key '.*sampler.k'"),
        (whole(num_epochs=0), r"num_epochs: at least 1; got 0"),
        (whole(weighting="max"), r"sessions.s.weighting: .*'sum'.*'mean'.*'max'"),
        (whole(policy="jiont"), r"policy.name: unknown .*did you mean 'joint'"),
        (whole(policy={"name": "topk", "k": 1}), r"unknown key 'sessions.s.policy.k'"),
        (
            whole(policy={"name": "joint", "score": "hard"}),
            r"sessions.s.policy.score: .*'hard_learner'.*'hard'",
        ),
        (whole(policy={"name": "joint", "num_chunks": 9}), r"num_chunks: at most .*=8"),
        (whole(policy=JOINT), r"learner: .* needs learner.embeddings"),
        (
            whole(policy=JOINT, learner="m"),
            r"reference: .* needs reference.embeddings",
        ),
        (whole(policy="topk"), r"learner: TopK.* needs learner.loss; name a model"),
        (whole(features="trainer"), r"features: 'trainer' makes no sense"),
        (whole(pool="q"), r"sessions.s: pool: no pool 'q'. Known: p"),
        (
            whole(policy=JOINT, learner="n", reference="m"),
            r"sessions.s: learner: no model 'n'.*Known: m",
        ),
        ({**whole(), "sessions": {"a/b": SESSION}}, r"a session's name is .*'a/b'"),
    ],
)
def test_a_mistake_is_told_by_key_value_and_what_is_allowed(table, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(table)


def test_a_missing_file_and_broken_toml_name_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere.toml"):
        curator.load_config(tmp_path / "nowhere.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[server")

    with pytest.raises(ConfigError, match=r"broken.toml: not valid TOML"):
        curator.load_config(broken)


def test_a_specification_is_frozen():
    spec = parse_session(
        {
            **SESSION,
            "policy": {"name": "topk", "loss": "sigmoid", "score": "hard_learner"},
            "learner": "m",
        }
    )

    assert spec.policy == TopK(loss="sigmoid", score="hard_learner")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.seed = 1
