"""Sessions whose reference is what ``curator score`` wrote, and no model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import towers
import worlds
from scorers import lists_of

import curator
from curator.config import Config, SessionSpec, parse_config
from curator.engine import Registry
from curator.errors import ConfigError, PoolChangedError
from curator.models import write_weights
from curator.offline import ScoreJob, score

LEARNABILITY = {"name": "topk", "loss": "scalar", "score": "learnability"}
JOINT = {"name": "joint", "num_chunks": 4}


@pytest.fixture
def tables(tmp_path: Path) -> dict[str, Any]:
    """A configuration of a pool and models, without sessions."""
    rng = np.random.default_rng(0)
    table = worlds.pairs()
    x = rng.standard_normal((len(table), 16)).astype(np.float32)
    table = table.append_column("x", lists_of(x))
    table = table.append_column("y", pa.array(rng.integers(0, 16, len(table))))
    with pa.ipc.new_file(tmp_path / "pairs.arrow", table.schema) as writer:
        writer.write_table(table)
    pair = {"factory": "towers:build", "columns": worlds.COLUMNS}
    classes = {
        "kind": "classifier",
        "factory": "small_models:classifier",
        "label": "y",
        "columns": ["x"],
        "micro_batch_size": 16,
    }
    return {
        "server": {"state_dir": "state"},
        "pools": {"pairs": {"format": "arrow", "path": "pairs.arrow"}},
        "models": {
            "learner": {**pair, "micro_batch_size": 16},
            "reference": {**pair, "micro_batch_size": 16, "args": {"seed": 7}},
            "classes": classes,
            "teacher": {**classes, "args": {"seed": 3}},
        },
    }


def with_session(tables: dict[str, Any], state: str, **session: Any) -> dict[str, Any]:
    body = {
        "pool": "pairs",
        "batch_size": 8,
        "super_batch_size": 24,
        "seed": 3,
        **session,
    }
    return {**tables, "server": {"state_dir": state}, "sessions": {"s": body}}


def scored(tables: dict[str, Any], folder: Path, model: str, **changes: Any) -> Path:
    out = folder / f"scores of {model}"
    config = parse_config(tables, base=folder)
    score(config, ScoreJob(pool="pairs", model=model, out=out, **changes))
    return out


def opened(tables: dict[str, Any], folder: Path) -> curator.Service:
    return curator.local(parse_config(tables, base=folder))


def batches_of(tables: dict[str, Any], folder: Path, model: Any) -> list[Any]:
    with opened(tables, folder) as service:
        return worlds.train(service.open("s"), 6, model=model)


@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize(
    ("policy", "learner", "reference"),
    [(JOINT, "learner", "reference"), (LEARNABILITY, "classes", "teacher")],
)
def test_batches_are_those_of_a_session_with_the_model(
    tables: dict[str, Any],
    tmp_path: Path,
    policy: dict[str, Any],
    learner: str,
    reference: str,
    is_named: bool,
) -> None:
    import small_models

    build = towers.build if learner == "learner" else small_models.classifier
    scored(tables, tmp_path, reference)
    given = {"policy": policy, "learner": learner}
    live = with_session(tables, "live", **given, reference=reference)
    also = {"reference": reference} if is_named else {}
    stored = with_session(
        tables, "stored", **given, **also, scores=f"scores of {reference}"
    )
    if not is_named:  # it is not there any more
        rest = {k: v for k, v in stored["models"].items() if k != reference}
        stored = {**stored, "models": rest}

    ours = batches_of(stored, tmp_path, build())
    theirs = batches_of(live, tmp_path, build())

    worlds.assert_same_batches(ours, theirs)
    with opened(stored, tmp_path) as service:
        assert service.describe("s").cost["num_reference_scored"] == 0
        assert service.describe("s").spec.reference == "s.scores"


def test_sessions_with_the_same_scores_share_them(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    scored(tables, tmp_path, "teacher")
    table = with_session(
        tables,
        "state",
        policy=LEARNABILITY,
        learner="classes",
        scores="scores of teacher",
    )
    table["sessions"]["t"] = table["sessions"]["s"]
    registry = Registry(parse_config(table, base=tmp_path))
    try:
        registry.open("s")
        registry.open("t")
        assert len(registry._references) == 1
    finally:
        registry.close()


def refused(tables: dict[str, Any], folder: Path, message: str) -> None:
    with (
        opened(tables, folder) as service,
        pytest.raises(ConfigError, match=message),
    ):
        service.open("s")


def rho(tables: dict[str, Any], **session: Any) -> dict[str, Any]:
    given = {"policy": LEARNABILITY, "learner": "classes", **session}
    return with_session(tables, "state", **given)


def test_scores_of_another_pool_are_refused(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    out = scored(tables, tmp_path, "teacher")
    with opened(tables, tmp_path) as service:
        then = service._transport._registry.pool("pairs").fingerprint[:16]
    table = pa.ipc.open_file(tmp_path / "pairs.arrow").read_all()
    with pa.ipc.new_file(tmp_path / "other.arrow", table.schema) as writer:
        writer.write_table(table.slice(1))
    tables["pools"]["others"] = {"format": "arrow", "path": "other.arrow"}

    refused(
        rho(tables, pool="others", scores=out.name),
        tmp_path,
        rf"the scores in '{out}' are of a pool with the fingerprint {then}, and pool "
        r"'others' has \w{16}: their ids would mean other examples. Name the pool",
    )


def test_a_single_file_of_scores_is_checked_too(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    out = scored(tables, tmp_path, "teacher")
    path = out / "part-00000.parquet"
    table = pq.read_table(path)
    said = table.schema.metadata[b"curator.scores"]
    changed = said.replace(b'"pool_fingerprint": "', b'"pool_fingerprint": "0')
    pq.write_table(
        table.replace_schema_metadata({b"curator.scores": changed}),
        tmp_path / "one.parquet",
    )
    tables["models"]["table"] = {"kind": "table", "path": "one.parquet"}

    refused(
        rho(tables, reference="table"), tmp_path, "are of a pool with the fingerprint 0"
    )


def test_scores_of_another_model_than_the_one_named_are_refused(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    out = scored(tables, tmp_path, "teacher")
    tables["models"]["teacher"]["args"] = {"seed": 4}
    tables["models"]["teacher"]["dtype"] = "bfloat16"

    refused(
        rho(tables, reference="teacher", scores=out.name),
        tmp_path,
        r"are not of model 'teacher', but of one with the fingerprint \w{16}: args was "
        r"{'seed': 3}, is now {'seed': 4}; dtype was 'float32', is now 'bfloat16'",
    )


def test_other_weights_than_those_that_scored_are_refused(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    import small_models

    path = tmp_path / "w.safetensors"
    write_weights(path, small_models.classifier(seed=1))
    tables["models"]["teacher"]["weights"] = path.name
    out = scored(tables, tmp_path, "teacher")
    session = rho(tables, reference="teacher", scores=out.name)
    with opened(session, tmp_path) as service:
        service.open("s")

    write_weights(path, small_models.classifier(seed=2))
    refused(session, tmp_path, r"weights was a set with the digest \w{16}, is now a s")
    path.unlink()
    with (
        opened(session, tmp_path) as service,
        pytest.raises(curator.errors.StorageError, match=r"w\.safetensors' cannot be"),
    ):
        service.open("s")


def test_where_and_in_which_portions_the_model_ran_does_not_matter(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    out = scored(tables, tmp_path, "teacher")
    tables["models"]["teacher"] |= {"device": "cuda:1", "micro_batch_size": 8}

    with opened(rho(tables, reference="teacher", scores=out.name), tmp_path) as service:
        service.open("s")


def test_a_file_that_does_not_say_its_model_stands_for_none(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    ids = np.arange(worlds.NUM_EXAMPLES)
    table = pa.table({"example_id": ids, "loss": np.ones(len(ids))})
    pq.write_table(table, tmp_path / "one.parquet")

    with opened(rho(tables, scores="one.parquet"), tmp_path) as service:
        service.open("s")
    refused(
        {**rho(tables, reference="teacher", scores="one.parquet")}
        | {"server": {"state_dir": "other"}},
        tmp_path,
        "does not say which model its scores are of, so 'teacher' cannot be checked",
    )


def test_a_pool_that_changed_is_told_before_its_scores(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    out = scored(tables, tmp_path, "teacher")
    session = rho(tables, scores=out.name)
    with opened(session, tmp_path) as service:
        service.open("s")
    table = pa.ipc.open_file(tmp_path / "pairs.arrow").read_all()
    with pa.ipc.new_file(tmp_path / "pairs.arrow", table.schema) as writer:
        writer.write_table(table.slice(1))

    with (
        opened(session, tmp_path) as service,
        pytest.raises(PoolChangedError, match="pool 'pairs' has changed"),
    ):
        service.open("s")


# --- the key ---


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ({"scores": 3}, "sessions.s.scores: the folder that .* wrote; got 3"),
        ({"scores": ""}, "sessions.s.scores: the folder .* got ''"),
        (
            {"scores": "x", "reference": "techer"},
            r"models\.s\.scores\.model: no model 'techer' \(did you mean 'teacher'\?\)",
        ),
        (
            {"scores": "x", "reference": "table"},
            "models.s.scores.model: 'table' is a table itself",
        ),
        ({"scores": "x", "reference": 3}, "models.s.scores.model: expected a valid st"),
    ],
)
def test_a_wrong_key_is_told(
    tables: dict[str, Any], tmp_path: Path, session: dict[str, Any], message: str
) -> None:
    tables["models"]["table"] = {"kind": "table", "path": "t.parquet"}

    with pytest.raises(ConfigError, match=message):
        parse_config(rho(tables, **session), base=tmp_path)


def test_a_model_of_the_same_name_is_told(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    tables["models"]["s.scores"] = tables["models"]["teacher"]

    with pytest.raises(ConfigError, match=r"there is a \[models.'s.scores'\] already"):
        parse_config(rho(tables, scores="x"), base=tmp_path)


def test_the_path_is_relative_to_the_file(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    config = parse_config(rho(tables, scores="../x"), base=tmp_path)

    assert config.models["s.scores"].path == str(tmp_path / "../x")
    assert config.sessions["s"].reference == "s.scores"


def test_a_client_names_no_path(tables: dict[str, Any], tmp_path: Path) -> None:
    config: Config = parse_config(tables, base=tmp_path)
    body = rho(tables, scores="/etc")["sessions"]["s"]

    with (
        curator.local(config) as service,
        pytest.raises(ConfigError, match=r"session.scores: a path of the server"),
    ):
        service.open("mine", body)
    names = {field.name for field in dataclasses.fields(SessionSpec)}
    assert "scores" not in names
