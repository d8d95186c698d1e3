from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import two_tower
from scorers import embed, scorer

from curator import ModelSpec, PoolSpec, RaySpec
from curator.engine import _hosted_scorer
from curator.engine._hosted_scorer import HostedScorer, ScoringPlan, Shard, Snapshot
from curator.errors import PoolError, StorageError
from curator.models import build_scorer, write_weights
from curator.pools import open_pool
from curator.types import Features, PairEmbeddings

NUM_EXAMPLES = 64
NEEDS = frozenset({"learner.embeddings"})


@pytest.fixture
def plan(tmp_path: Path) -> ScoringPlan:
    rows = two_tower.rows(NUM_EXAMPLES)
    path = tmp_path / "pool.arrow"
    with pa.ipc.new_file(path, rows.schema) as writer:
        writer.write_batch(rows)
    weights = tmp_path / "weights.safetensors"
    write_weights(weights, two_tower.build())
    model = ModelSpec(
        factory="two_tower:build",
        columns=list(two_tower.COLUMNS),
        micro_batch_size=16,
        weights=str(weights),
    )
    return ScoringPlan(
        session="s",
        ray=RaySpec(),
        pool=PoolSpec(format="arrow", path=str(path)),
        pool_fingerprint=open_pool("arrow", path=str(path)).fingerprint,
        num_examples=NUM_EXAMPLES,
        models={
            "learner": (model, build_scorer(model).fingerprint),
            "reference": (model, build_scorer(model).fingerprint),
        },
        python_path=(),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the scorers of this user share on this node."""
    folder = tmp_path / "curator-0"
    monkeypatch.setattr(_hosted_scorer, "_FOLDER", folder)
    return folder


@pytest.fixture
def hosted(folder: Path) -> HostedScorer:
    return HostedScorer()


def snapshots(folder: Path, num: int) -> list[Path]:
    paths = [folder / f"snapshot-{seed}.safetensors" for seed in range(num)]
    for seed, path in enumerate(paths):
        write_weights(path, two_tower.build(seed=seed + 1))
    return paths


def shard(start: int, num: int = 16, needs: frozenset[str] = NEEDS) -> Shard:
    return Shard(f"shard {start}", np.arange(start, start + num), needs)


def queries(features: Features, name: str = "learner.embeddings") -> np.ndarray:
    embeddings = features[name]
    assert isinstance(embeddings, PairEmbeddings)
    return embeddings.queries


def expected(path: Path | None) -> np.ndarray:
    return embed(scorer(weights=path), two_tower.rows(NUM_EXAMPLES)).queries


def bytes_of(path: Path) -> np.ndarray:
    return np.fromfile(path, np.uint8)


def test_two_threads_score_with_the_weights_that_each_was_given(
    hosted: HostedScorer, plan: ScoringPlan, tmp_path: Path
) -> None:
    assert hosted.load(plan)
    paths = [None, *snapshots(tmp_path, 2)]
    known = [expected(path) for path in paths]

    def score(number: int) -> bool:
        which, start = number % len(paths), number * 16 % NUM_EXAMPLES
        path = paths[which]
        of = None if path is None else Snapshot.of(str(path))
        data = None if path is None else bytes_of(path)
        found, _, num_scored = hosted.score(shard(start), of, data)
        assert num_scored == {"learner": 16}
        return np.array_equal(queries(found), known[which][start : start + 16])

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(score, range(60)))


def test_weights_that_are_not_on_this_machine_come_with_the_call(
    hosted: HostedScorer, plan: ScoringPlan, tmp_path: Path, folder: Path
) -> None:
    assert hosted.load(plan)
    (path,) = snapshots(tmp_path, 1)
    elsewhere = Snapshot(
        str(tmp_path / "gone" / path.name), Snapshot.of(str(path)).inode
    )

    first, _, _ = hosted.score(shard(0), elsewhere, bytes_of(path))
    again, _, _ = hosted.score(shard(16), elsewhere, bytes_of(path))

    np.testing.assert_array_equal(queries(first), expected(path)[:16])
    np.testing.assert_array_equal(queries(again), expected(path)[16:32])
    assert list(folder.glob("*.safetensors")) == []


def test_a_folder_that_others_may_write_to_is_not_used(
    hosted: HostedScorer, plan: ScoringPlan, tmp_path: Path, folder: Path
) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    assert not hosted.load(plan)  # the rows come with the shards
    (path,) = snapshots(tmp_path, 1)
    elsewhere = Snapshot(
        str(tmp_path / "gone" / path.name), Snapshot.of(str(path)).inode
    )
    handed = dataclasses.replace(shard(0), rows=two_tower.rows(16))

    with pytest.raises(StorageError, match=r"others may write to .*: remove it"):
        hosted.score(handed, elsewhere, bytes_of(path))


def test_a_shard_of_the_reference_needs_no_snapshot(
    hosted: HostedScorer, plan: ScoringPlan, tmp_path: Path
) -> None:
    assert hosted.load(plan)
    gone = Snapshot(str(tmp_path / "gone"), (0, 0, 0))

    found, _, num_scored = hosted.score(
        shard(0, needs=frozenset({"reference.embeddings"})), gone, np.zeros(3, np.uint8)
    )

    assert num_scored == {"reference": 16}
    np.testing.assert_array_equal(
        queries(found, "reference.embeddings"), expected(None)[:16]
    )


def test_threads_have_the_rows_that_each_was_handed(
    hosted: HostedScorer, plan: ScoringPlan
) -> None:
    assert not hosted.load(dataclasses.replace(plan, pool=None))
    rows, known = two_tower.rows(NUM_EXAMPLES), expected(None)

    def score(number: int) -> bool:
        start = number % 4 * 16
        handed = dataclasses.replace(shard(start), rows=rows.slice(start, 16))
        found, _, _ = hosted.score(handed, None, None)
        return np.array_equal(queries(found), known[start : start + 16])

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(score, range(40)))
    with pytest.raises(PoolError, match="handed no rows"):
        hosted.score(shard(0), None, None)
