from __future__ import annotations

import dataclasses
import json
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scored import LOSS, NAN_IDS, NUM_EXAMPLES, configured, contents, job, shards
from small_disk import small_disk

from curator.config import Config
from curator.engine._executor import LocalExecutor, ScoringRequest, ScoringResult
from curator.engine._scoring_worker import ScoringWorker
from curator.errors import ConfigError, PoolError, ScoringError, StorageError
from curator.models import ScoreTable, build_scorer
from curator.offline import Progress, estimate, score
from curator.offline._score import _scored
from curator.offline._source import Source, open_source
from curator.types import PairEmbeddings

IDS = np.arange(NUM_EXAMPLES)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "results" / "scores"


def changed(config: Config, name: str, **changes: object) -> Config:
    """The configuration with another model under a name."""
    spec = dataclasses.replace(config.models[name], **changes)
    return dataclasses.replace(config, models={**config.models, name: spec})


# --- what comes out ---


@pytest.mark.parametrize(
    ("model", "outputs"),
    [
        ("classes", ["entropy", "grad_norm", "loss"]),
        ("towers", ["embeddings"]),
        ("words", ["entropy", "loss", "nuclear_norm", "num_tokens", "perplexity"]),
    ],
)
def test_a_session_reads_from_the_scores_what_the_model_says(
    config: Config, out: Path, model: str, outputs: list[str]
) -> None:
    report = score(config, job(out, model=model))

    table = ScoreTable(out)
    needs = frozenset(f"reference.{name}" for name in outputs)
    with open_source(config, job(out, model=model)) as source:
        live = ScoringWorker(
            source.pool, reference=build_scorer(config.models[model])
        ).score(IDS, needs, None)[0]
        stored = ScoringWorker(source.pool, reference=table).score(IDS, needs, None)[0]
    assert report.outputs == sorted(table.outputs) == outputs
    assert table.num_missing(NUM_EXAMPLES) == 0
    assert live.keys() == stored.keys() == needs
    for need in needs:
        ours, theirs = stored[need], live[need]
        if isinstance(ours, PairEmbeddings):
            assert isinstance(theirs, PairEmbeddings)
            assert ours.logit_scale == theirs.logit_scale
            assert ours.logit_bias == theirs.logit_bias
            # Normalised once more.
            np.testing.assert_allclose(ours.queries, theirs.queries, atol=1e-6)
            np.testing.assert_allclose(ours.targets, theirs.targets, atol=1e-6)
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_embeddings_are_written_as_the_model_gives_them(
    config: Config, out: Path
) -> None:
    score(config, job(out, model="towers"))

    columns = pq.read_table(out)
    with open_source(config, job(out, model="towers")) as source:
        found = source.submit(IDS).result().features["reference.embeddings"]
    assert columns.column_names == [
        *("example_id", "queries", "targets", "logit_scale", "logit_bias")
    ]
    assert isinstance(found, PairEmbeddings)
    for side in ("queries", "targets"):
        written = columns[side].combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(written, getattr(found, side).reshape(-1))


def test_rows_of_numbers_are_lists_when_asked_for(config: Config, out: Path) -> None:
    score(config, job(out, model="words", outputs=("projection",), limit=20))

    found = ScoreTable(out).look_up(np.arange(20), frozenset({"projection"}))
    rows = found["projection"]
    assert isinstance(rows, np.ndarray)
    assert rows.shape == (20, 1024)
    assert np.isfinite(rows).all()


def test_shards_hold_successive_ids_and_say_what_they_are_of(
    config: Config, out: Path
) -> None:
    report = score(config, job(out, outputs=LOSS))

    assert shards(out) == [f"part-0000{i}.parquet" for i in range(4)]
    assert sorted(contents(out)) == ["_manifest.json", *shards(out)]
    assert report.num_shards == 4
    assert report.num_bytes == sum(len(contents(out)[name]) for name in shards(out))
    manifest = (out / "_manifest.json").read_bytes()
    for i, name in enumerate(shards(out)):
        table = pq.read_table(out / name)
        ids = table["example_id"].to_numpy()
        np.testing.assert_array_equal(ids, IDS[64 * i : 64 * (i + 1)])
        assert table.schema.metadata[b"curator.scores"] == manifest
    said = json.loads(manifest)
    assert said["model"]["factory"] == "small_models:classifier"
    assert said["model"]["columns"] == ["x"]
    assert said["outputs"] == ["loss"]
    assert said["versions"].keys() == {"batch-curator", "torch"}


def test_what_is_not_finite_is_kept_and_counted(config: Config, out: Path) -> None:
    report = score(config, job(out))

    loss = ScoreTable(out).look_up(IDS, frozenset(LOSS))["loss"]
    assert isinstance(loss, np.ndarray)
    assert np.flatnonzero(np.isnan(loss)).tolist() == list(NAN_IDS)
    assert report.not_finite == {"entropy": 3, "grad_norm": 3, "loss": 3}


def test_embeddings_that_are_not_finite_are_counted(tmp_path: Path, out: Path) -> None:
    config = configured(tmp_path)
    broken = changed(config, "towers", factory="scored:towers_with_nan")

    report = score(broken, job(out, model="towers", limit=40))

    assert report.not_finite == {"embeddings": 40}


def test_a_limit_is_the_first_examples(config: Config, out: Path) -> None:
    report = score(config, job(out, limit=70))

    assert (report.num_examples, report.num_shards) == (70, 2)
    assert pq.read_table(out)["example_id"].to_pylist() == list(range(70))


def test_a_limit_beyond_the_pool_is_the_pool(config: Config, out: Path) -> None:
    assert score(config, job(out, limit=10**9)).num_examples == NUM_EXAMPLES


def test_progress_counts_every_example_once(config: Config, out: Path) -> None:
    seen: list[Progress] = []

    score(config, job(out, limit=150, shard_size=70), on_progress=seen.append)

    assert [progress.num_scored for progress in seen] == [64, 70, 134, 140, 150]
    assert {progress.num_examples for progress in seen} == {150}
    assert seen[-1].seconds_left == 0.0
    assert seen[0].rate > 0.0


# --- some examples, and columns beside the scores ---

WHERE = "label < 5"


def labels(folder: Path) -> np.ndarray:
    return pq.read_table(folder / "pool.parquet")["label"].to_numpy()


def test_a_condition_leaves_examples_out_and_ids_are_the_pools(
    config: Config, tmp_path: Path, out: Path
) -> None:
    wanted = np.flatnonzero(labels(tmp_path) < 5)

    report = score(config, job(out, where=WHERE, shard_size=30))
    whole = tmp_path / "whole"
    score(config, job(whole))

    found = pq.read_table(out)
    assert report.num_examples == len(wanted) == found.num_rows
    np.testing.assert_array_equal(found["example_id"], wanted)
    assert [pq.read_metadata(out / name).num_rows for name in shards(out)][:2] == [
        *(30, 30)
    ]
    said = json.loads((out / "_manifest.json").read_bytes())
    assert (said["where"], said["pool_num_examples"]) == (WHERE, NUM_EXAMPLES)
    assert ScoreTable(out).num_missing(NUM_EXAMPLES) == NUM_EXAMPLES - len(wanted)
    for name, values in ScoreTable(out).look_up(wanted, frozenset(LOSS)).items():
        theirs = ScoreTable(whole).look_up(wanted, frozenset(LOSS))[name]
        np.testing.assert_array_equal(values, theirs)


def test_a_limit_is_the_first_examples_that_meet_the_condition(
    config: Config, tmp_path: Path, out: Path
) -> None:
    score(config, job(out, where=WHERE, limit=20))

    wanted = np.flatnonzero(labels(tmp_path) < 5)[:20]
    assert pq.read_table(out)["example_id"].to_pylist() == wanted.tolist()


def test_a_run_with_a_condition_and_columns_continues_to_the_same_files(
    config: Config, tmp_path: Path
) -> None:
    given = {"where": WHERE, "columns": ("label", "tokens"), "shard_size": 20}
    whole, out = tmp_path / "whole", tmp_path / "out"
    score(config, job(whole, **given))

    with pytest.raises(KeyboardInterrupt):
        score(config, job(out, **given), on_progress=Interrupt(2))
    again = score(config, job(out, **{**given, "where": "(label<5)"}))

    assert 0 < again.num_ready < again.num_examples
    assert contents(out) == contents(whole)


def test_columns_are_copied_and_are_no_outputs(
    config: Config, tmp_path: Path, out: Path
) -> None:
    score(config, job(out, outputs=LOSS, columns=("tokens", "label", "label")))

    pool, found = pq.read_table(tmp_path / "pool.parquet"), pq.read_table(out)
    assert found.column_names == ["example_id", "label", "tokens", "loss"]
    for name in ("label", "tokens"):
        assert found[name].equals(pool[name])
    assert ScoreTable(out).outputs == {"loss"}
    manifest = ScoreTable(out).manifest
    assert manifest is not None
    assert manifest["columns"] == ["label", "tokens"]


def test_an_estimate_counts_what_is_copied_and_left_out(
    config: Config, tmp_path: Path, out: Path
) -> None:
    found = estimate(config, job(out, outputs=LOSS, where=WHERE, columns=("label",)))

    assert found.num_examples == np.count_nonzero(labels(tmp_path) < 5)
    assert found.num_bytes == found.num_examples * (8 + 8 + 4)


# --- interrupted, and run again ---


class Interrupt:
    """Is called after every block; ends the run after some of them."""

    def __init__(self, num_blocks: int) -> None:
        self.num_left = num_blocks

    def __call__(self, progress: Progress) -> None:
        self.num_left -= 1
        if not self.num_left:
            raise KeyboardInterrupt


def test_a_run_stopped_after_any_block_continues_to_the_same_files(
    config: Config, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    report = score(config, job(whole, shard_size=90))

    for stop_after in range(1, 7):
        out = tmp_path / f"stopped-{stop_after}"
        with pytest.raises(KeyboardInterrupt):
            score(config, job(out, shard_size=90), on_progress=Interrupt(stop_after))
        (out / ".part-00002.parquet.part").write_bytes(b"cut short")
        again = score(config, job(out, shard_size=90))

        assert again.num_ready == 90 * ((stop_after - 1) // 2)
        assert again.num_ready + again.num_scored == NUM_EXAMPLES
        assert again.not_finite == report.not_finite
        assert again.is_finished
        assert contents(out) == contents(whole)


def test_a_run_that_is_asked_to_stop_finishes_its_shard(
    config: Config, out: Path
) -> None:
    first = score(config, job(out), should_stop=lambda: True)
    second = score(config, job(out))

    assert (first.num_scored, first.is_finished) == (64, False)
    assert first.not_finite["loss"] == 1
    assert (second.num_ready, second.num_scored) == (64, NUM_EXAMPLES - 64)
    assert second.not_finite["loss"] == 3


def test_asked_to_stop_after_the_last_shard_it_is_finished(
    config: Config, out: Path
) -> None:
    report = score(config, job(out, limit=64), should_stop=lambda: True)

    assert report.is_finished


def test_a_finished_run_does_nothing_again(config: Config, out: Path) -> None:
    first = score(config, job(out))
    written = contents(out)

    again = score(config, job(out), on_progress=lambda _: pytest.fail("scored"))

    assert (again.num_ready, again.num_scored) == (NUM_EXAMPLES, 0)
    assert again.not_finite == first.not_finite
    assert contents(out) == written


def test_a_shard_that_is_taken_away_is_written_again(config: Config, out: Path) -> None:
    score(config, job(out))
    whole = contents(out)
    (out / "part-00001.parquet").unlink()

    report = score(config, job(out))

    assert (report.num_ready, report.num_scored) == (NUM_EXAMPLES - 64, 64)
    assert contents(out) == whole


def test_unfinished_scores_are_no_table(config: Config, out: Path) -> None:
    score(config, job(out), should_stop=lambda: True)

    with pytest.raises(ConfigError, match=r"64 of 250 examples: it is not finished\. "):
        ScoreTable(out)


def test_after_a_model_failed_the_shards_before_it_stay(
    config: Config, out: Path
) -> None:
    failing = changed(config, "classes", factory="scored:failing")
    with pytest.raises(ScoringError, match="cannot go on"):
        score(failing, job(out))

    assert shards(out) == ["part-00000.parquet"]


def test_a_full_disk_is_told_and_the_run_continues(
    config: Config, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    score(config, job(whole, model="towers"))

    with small_disk(tmp_path / "disk", "192k") as disk:
        filler = disk / "filler"
        filler.write_bytes(bytes(120 << 10))
        with pytest.raises(StorageError, match=r"no space left to write '.*/part-0000"):
            score(config, job(disk / "out", model="towers"))
        assert 0 < len(shards(disk / "out")) < 4
        assert not any(name.startswith(".") for name in contents(disk / "out"))

        filler.unlink()
        score(config, job(disk / "out", model="towers"))
        assert contents(disk / "out") == contents(whole)


def test_a_shard_that_cannot_be_written_ends_the_run_before_the_next_is_written(
    config: Config, out: Path
) -> None:
    (out / ".part-00001.parquet.part").mkdir(parents=True)
    seen: list[Progress] = []

    with pytest.raises(StorageError, match=r"part-00001\.parquet': Is a directory"):
        score(config, job(out), on_progress=seen.append)

    assert shards(out) == ["part-00000.parquet"]
    assert seen[-1].num_scored <= 3 * 64


# --- another run's folder ---


def test_scores_of_another_model_are_refused_and_the_differences_named(
    config: Config, out: Path
) -> None:
    score(config, job(out))
    other = changed(config, "classes", args={"seed": 1}, dtype="bfloat16")

    message = (
        r"'.*/scores' holds scores of another run: model\.args\.seed was None, is now "
        r"1; model\.dtype was 'float32', is now 'bfloat16'; model_fingerprint was '\w+'"
        r", is now '\w+'\. Put back what it was"
    )
    with pytest.raises(ConfigError, match=message):
        score(other, job(out))


def test_scores_of_another_version_are_told_as_that(config: Config, out: Path) -> None:
    score(config, job(out))
    (path,) = out.glob("*.json")
    table = json.loads(path.read_text())
    path.write_text(json.dumps({**table, "format": 2}))

    with pytest.raises(
        ConfigError,
        match=r"scores of another version of batch-curator \(format 2; this one writes "
        r"3\)\. They can be read, but not continued: choose another folder, or delete",
    ):
        score(config, job(out))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 100}, "num_examples was 250, is now 100"),
        ({"shard_size": 32}, "shard_size was 64, is now 32"),
        ({"outputs": LOSS}, r"outputs was \['entropy', .* is now \['loss'\]"),
        ({"where": "label < 99"}, "where was None, is now 'label < 99'"),
        ({"columns": ("label",)}, r"columns was \[\], is now \['label'\]"),
    ],
)
def test_scores_of_another_job_are_refused(
    config: Config, out: Path, changes: dict[str, object], message: str
) -> None:
    score(config, job(out))
    written = contents(out)

    with pytest.raises(ConfigError, match=message):
        score(config, job(out, **changes))
    assert contents(out) == written


def test_a_run_that_failed_before_its_first_file_leaves_the_folder_free(
    config: Config, out: Path
) -> None:
    with pytest.raises(ScoringError, match="label column 'tokens'"):
        score(changed(config, "classes", label="tokens"), job(out))
    assert [path.name for path in out.iterdir()] == ["_manifest.json"]

    assert score(config, job(out)).is_finished


@pytest.mark.parametrize("damage", ["", "{", "[]", None])
def test_a_manifest_that_was_lost_is_that_of_the_files(
    config: Config, out: Path, damage: str | None
) -> None:
    score(config, job(out))
    written = contents(out)
    (path,) = out.glob("*.json")
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)

    with pytest.raises(ConfigError, match="num_examples was 250, is now 100"):
        score(config, job(out, limit=100))
    assert contents(out) == written
    assert score(config, job(out)).num_scored == 0


def test_a_damaged_manifest_without_files_is_told(config: Config, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "_manifest.json").write_text("{")

    with pytest.raises(StorageError, match=r"is damaged .*: delete the folder"):
        score(config, job(out))


def test_scores_of_a_changed_pool_are_refused(tmp_path: Path, out: Path) -> None:
    score(configured(tmp_path, num_examples=80), job(out, limit=64))

    with pytest.raises(ConfigError, match="run: pool_fingerprint was '"):
        score(configured(tmp_path, num_examples=90), job(out, limit=64))


def test_which_of_several_devices_scores_does_not_matter(
    config: Config, out: Path
) -> None:
    score(changed(config, "classes", device="cpu:0"), job(out))

    assert score(config, job(out)).num_scored == 0


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": "q"}, r"no pool 'q'.* Known: ids, p"),
        ({"model": "clases"}, r"no model 'clases' \(did you mean 'classes'\?\)"),
        ({"model": "table"}, "'table' is a table, which holds scores already"),
        ({"outputs": ("los",)}, r"gives no 'los' \(did you mean 'loss'\?\)"),
        ({"outputs": ()}, "at least one of entropy, grad_norm, loss"),
        ({"pool": "ids"}, "models.classes.columns: pool 'ids' has no 'x'"),
        ({"where": "lable < 3"}, r"no 'lable' \(did you mean 'label'\?\)"),
        ({"where": "label < "}, "where: 'label < ': invalid syntax"),
        ({"where": "label < -1"}, "label < -1 is true of none of the 250 examples"),
        ({"columns": ("lable",)}, r"columns: pool 'p' has no 'lable' \(did you"),
    ],
)
def test_a_job_that_does_not_fit_is_told(
    config: Config, out: Path, changes: dict[str, object], message: str
) -> None:
    for run in (score, estimate):
        with pytest.raises(ConfigError, match=message):
            run(config, job(out, **changes))
    assert not out.exists()


@pytest.mark.parametrize("name", ["limit", "shard_size"])
def test_a_size_below_one_is_told(out: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: at least 1; got 0"):
        job(out, **{name: 0})


def test_a_pool_that_cannot_be_read_is_told(
    config: Config, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "pool.parquet").write_bytes(b"no Parquet")

    with pytest.raises(PoolError, match=r"pool\.parquet"):
        score(config, job(out))


# --- the cost ---


def test_an_estimate_writes_nothing(config: Config, out: Path) -> None:
    found = estimate(config, job(out, model="towers"))

    assert not out.parent.exists()
    assert (found.num_examples, found.num_shards) == (NUM_EXAMPLES, 4)
    assert found.outputs == ["embeddings"]
    # An id, two sides of 32 numbers, a scale and a bias.
    assert found.num_bytes == NUM_EXAMPLES * (8 + 4 * 66)
    assert found.seconds > 0.0
    assert found.device_seconds > 0.0


def test_an_estimate_of_few_examples_scores_no_others(
    config: Config, out: Path
) -> None:
    found = estimate(config, job(out, limit=5))

    assert found.num_bytes == 5 * (8 + 3 * 4)
    assert found.num_tried == found.num_examples == 5


class Counting:
    """An executor of a pool and a model that counts what it was given."""

    def __init__(self, source: Source) -> None:
        self._local = LocalExecutor(ScoringWorker(source.pool))
        self.num_submitted = 0

    def submit(self, request: ScoringRequest) -> Future[ScoringResult]:
        self.num_submitted += 1
        return self._local.submit(request)

    def check_snapshot(self, path: Path) -> None:
        self._local.check_snapshot(path)

    def close(self) -> None:
        self._local.close()


def test_asked_to_stop_while_nothing_has_been_scored_it_ends(
    config: Config, out: Path
) -> None:
    with open_source(config, job(out)) as opened:
        waiting = dataclasses.replace(opened, _executor=Waiting())
        blocks = (np.arange(i, i + 2) for i in range(20))

        assert list(_scored(waiting, blocks, lambda: True)) == []


class Waiting:
    """An executor that waits for a cluster."""

    def submit(self, request: ScoringRequest) -> Future[ScoringResult]:
        return Future()

    def check_snapshot(self, path: Path) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("num_in_flight", "expected"), [(3, [3] * 17 + [2, 1, 0]), (0, [0] * 20)]
)
def test_only_a_few_blocks_are_under_way(
    config: Config, out: Path, num_in_flight: int, expected: list[int]
) -> None:
    with open_source(config, job(out)) as opened:
        executor = Counting(opened)
        source = dataclasses.replace(
            opened, _executor=executor, num_in_flight=num_in_flight
        )
        blocks = (np.arange(i, i + 2) for i in range(20))
        ahead = [
            executor.num_submitted - taken
            for taken, _ in enumerate(_scored(source, blocks, bool), start=1)
        ]
        executor.close()

    assert ahead == expected


def test_the_model_runs_in_the_thread_that_built_it(config: Config, out: Path) -> None:
    at_home = changed(config, "classes", factory="scored:at_home")

    assert score(at_home, job(out)).is_finished


@pytest.mark.parametrize("data", [b"", b"PAR1", None])
def test_a_damaged_shard_is_told(config: Config, out: Path, data: bytes | None) -> None:
    score(config, job(out))
    path = out / "part-00002.parquet"
    if data is None:  # another program's file of that name
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    else:
        path.write_bytes(data)

    message = r"part-00002\.parquet' is damaged \(.*\): delete it and run the command"
    with pytest.raises(StorageError, match=message):
        score(config, job(out))

    path.unlink()
    assert score(config, job(out)).num_scored == 64
