from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import odd_towers
import pyarrow as pa
import pytest
import torch
import two_tower
from safetensors.torch import save_file

from curator.errors import ConfigError, ScoringError, SnapshotError, StorageError
from curator.models import TwoTowerScorer, weights_to_bytes, write_weights
from curator.types import PairEmbeddings


def scorer(factory: str = "two_tower:build", **changes: Any) -> TwoTowerScorer:
    given: dict[str, Any] = {
        "factory": factory,
        "args": {},
        "weights": None,
        "device": "cpu",
        "dtype": "float32",
        "micro_batch_size": 16,
        "columns": list(two_tower.COLUMNS),
    }
    return TwoTowerScorer(**{**given, **changes})


def odd(factory: str = "build", **args: Any) -> TwoTowerScorer:
    return scorer(f"odd_towers:{factory}", args=args, columns=["x"], micro_batch_size=4)


def vectors(num_rows: int, width: int = 16) -> pa.RecordBatch:
    values = np.random.default_rng(1).standard_normal((num_rows, width), np.float32)
    return batch_of(values)


def batch_of(values: np.ndarray) -> pa.RecordBatch:
    flat = pa.array(values.reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.record_batch({"x": lists})


def bits(embeddings: PairEmbeddings) -> np.ndarray:
    both = np.concatenate([embeddings.queries, embeddings.targets], axis=1)
    return both.view(np.uint32)


@pytest.fixture
def num_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# --- what comes out ---


@pytest.mark.parametrize("num_rows", [1, 15, 16, 17, 40])
def test_embeddings_are_those_of_the_module(num_rows: int) -> None:
    rows = two_tower.rows(num_rows)
    module = two_tower.build().eval()
    images = torch.tensor(rows.column("image").to_numpy_ndarray().copy())
    tokens = torch.tensor(rows.column("tokens").to_pylist())

    embeddings = scorer().score(rows)

    with torch.inference_mode():
        expected = module({"image": images, "tokens": tokens})
    for name in ("queries", "targets"):
        unit = torch.nn.functional.normalize(expected[name]).numpy()
        found = getattr(embeddings, name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, unit, atol=1e-6)
    assert embeddings.logit_scale == pytest.approx(10.0)
    assert embeddings.logit_bias == -10.0


def test_a_softmax_model_has_no_bias() -> None:
    embeddings = scorer(args={"bias": False}).score(two_tower.rows(3))

    assert embeddings.logit_bias is None


def test_a_bias_of_one_element_is_a_number() -> None:
    assert odd(logit_bias="tensor_bias").score(vectors(3)).logit_bias == -2.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_float32_and_comes_back_as_float32(dtype: str) -> None:
    rows = two_tower.rows(20)

    embeddings = scorer(dtype=dtype).score(rows)

    assert embeddings.queries.dtype == np.float32
    norms = np.linalg.norm(embeddings.queries, axis=1)
    np.testing.assert_allclose(norms, 1.0, atol=1e-6)
    np.testing.assert_allclose(
        embeddings.queries, scorer().score(rows).queries, atol=0.05
    )
    assert not np.array_equal(embeddings.queries, scorer().score(rows).queries)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf, 3e38])
def test_a_row_without_direction_is_nan_and_leaves_the_others_alone(bad: float) -> None:
    values = np.ones((6, 16), np.float32)
    values[2] = bad

    embeddings = odd().score(batch_of(values))

    assert np.isnan(embeddings.queries[2]).all()
    np.testing.assert_allclose(np.delete(embeddings.queries, 2, axis=0), 0.25)


def test_one_bad_value_makes_the_whole_row_nan() -> None:
    values = np.ones((2, 16), np.float32)
    values[1, 5] = np.inf

    embeddings = odd().score(batch_of(values))

    assert np.isnan(embeddings.targets[1]).all()


# --- a row's bits do not depend on its company ---


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("micro_batch_size", [8, 16, 64])
@pytest.mark.usefixtures("num_threads")
def test_a_row_has_the_same_bits_whichever_rows_it_is_scored_with(
    dtype: str, threads: int, micro_batch_size: int
) -> None:
    torch.set_num_threads(threads)
    rows = two_tower.rows(100)
    model = scorer(dtype=dtype, micro_batch_size=micro_batch_size)
    together = bits(model.score(rows))
    rng = np.random.default_rng(0)

    for num_rows in (1, 7, 64, 100):
        chosen = rng.choice(100, num_rows, replace=False)
        found = bits(model.score(rows.take(pa.array(chosen))))
        assert np.array_equal(found, together[chosen])

    # Beginning elsewhere in the Arrow buffers is other alignment.
    assert np.array_equal(bits(model.score(rows.slice(3))), together[3:])


AWKWARD = """
import sys
import numpy as np, pyarrow as pa, torch, two_tower
from curator.models import TwoTowerScorer

rows, same = two_tower.rows(30), []
for threads in (1, 2):
    torch.set_num_threads(threads)
    for size in (2, 7, 10):
        model = TwoTowerScorer(
            factory="two_tower:build", args={"dim": 17}, weights=None, device="cpu",
            dtype="float32", micro_batch_size=size, columns=["image", "tokens"],
        )
        together = model.score(rows).queries
        chosen = np.random.default_rng(size).permutation(30)
        apart = model.score(rows.take(pa.array(chosen))).queries
        same.append(np.array_equal(apart, together[chosen]))
print(all(same))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL")
def test_awkward_sizes_have_stable_bits_in_mkls_reproducible_mode(
    repository: Path,
) -> None:
    path = os.pathsep.join([str(repository), str(repository / "tests")])
    environment = {**os.environ, "MKL_CBWR": "AVX2", "PYTHONPATH": path}

    process = subprocess.run(
        [sys.executable, "-c", AWKWARD],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert process.stdout.strip() == "True"


# --- what goes in ---


def inspected(column: pa.Array, **changes: Any) -> tuple[Any, TwoTowerScorer]:
    model = scorer(
        "odd_towers:inspector",
        columns=["x"],
        **{"micro_batch_size": len(column), **changes},
    )
    model.score(pa.record_batch({"x": column}))
    module: Any = model._module
    return module.batches[-1], model


FLOATS = pa.array(np.arange(12, dtype=np.float32))


@pytest.mark.parametrize(
    ("column", "shape", "dtype"),
    [
        (FLOATS, (12,), torch.float32),
        (pa.array(range(3), pa.uint8()), (3,), torch.uint8),
        (pa.array(range(3), pa.int64()), (3,), torch.int64),
        (pa.array([True, False]), (2,), torch.bool),
        (pa.array([1.0, 2.0], pa.float64()), (2,), torch.float32),
        (pa.FixedSizeListArray.from_arrays(FLOATS, 6), (2, 6), torch.float32),
        (
            pa.FixedSizeListArray.from_arrays(
                pa.FixedSizeListArray.from_arrays(FLOATS, 3), 2
            ),
            (2, 2, 3),
            torch.float32,
        ),
        (
            pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((3, 2, 2), np.int32)),
            (3, 2, 2),
            torch.int32,
        ),
    ],
)
def test_numbers_arrive_as_tensors(
    column: pa.Array, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    batch, _ = inspected(column)

    assert batch["x"].shape == shape
    assert batch["x"].dtype == dtype
    flat = np.asarray(column.to_pylist(), dtype=float).reshape(-1)
    np.testing.assert_array_equal(batch["x"].reshape(-1).double().numpy(), flat)


@pytest.mark.parametrize(
    "values", [["a", "bc"], [b"\x00", b""], [[1, 2], [3]], [{"a": 1}, {"a": 2}]]
)
def test_all_else_arrives_as_a_list(values: list[Any]) -> None:
    batch, _ = inspected(pa.array(values))

    assert batch["x"] == values


def test_half_models_get_their_floats_in_half_and_integers_as_they_are() -> None:
    floats, _ = inspected(FLOATS, dtype="bfloat16")
    integers, _ = inspected(pa.array([1, 2], pa.int32()), dtype="bfloat16")

    assert floats["x"].dtype == torch.bfloat16
    assert integers["x"].dtype == torch.int32


def test_the_last_micro_batch_is_padded_by_repeating_a_row() -> None:
    batch, _ = inspected(pa.array([1, 2, 3]), micro_batch_size=5)
    texts, _ = inspected(pa.array(["a", "b"]), micro_batch_size=4)

    assert batch["x"].tolist() == [1, 2, 3, 3, 3]
    assert texts["x"] == ["a", "b", "b", "b"]


def test_a_model_that_writes_into_its_input_leaves_the_pool_alone() -> None:
    column = pa.array(np.arange(6, dtype=np.float32))

    inspected(column)

    assert column.to_pylist() == [0, 1, 2, 3, 4, 5]


def test_the_model_runs_in_eval_mode_without_gradients() -> None:
    batch, model = inspected(FLOATS)

    module: Any = model._module
    assert batch["grad"] is False
    assert module.training is False


def test_missing_column_says_which_ones_there_are() -> None:
    with pytest.raises(ScoringError, match="reads 'x'; the rows have: image, caption"):
        odd().score(two_tower.rows(2))


def test_nulls_are_counted() -> None:
    rows = pa.record_batch({"x": pa.array([1.0, None, None])})

    with pytest.raises(ScoringError, match="2 of 3 rows have a null"):
        odd().score(rows)


def test_no_rows_is_a_programmers_mistake() -> None:
    with pytest.raises(ValueError, match="no rows"):
        odd().score(vectors(0))


# --- what the module must return ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": "absent"}, "returned targets, logit_scale; expected a mapping of"),
        ({"logit_scale": "absent"}, "returned queries, targets; expected"),
        ({"logit_bais": 1.0}, "logit_bais; expected .* optionally logit_bias"),
        ({"queries": "short"}, r"queries as float32 \[3, 16\] .* one shape \[4, D\]"),
        ({"queries": "flat"}, r"queries as float32 \[4\]"),
        ({"targets": "wide"}, r"targets as float32 \[4, 32\]"),
        ({"targets": "whole"}, r"targets as int64 \[4, 16\]"),
        ({"queries": "no_width", "targets": "no_width"}, r"float32 \[4, 0\]"),
        ({"queries": 3.0}, "queries as a float"),
        ({"logit_scale": 0.0}, "logit_scale = 0.0; .* not its logarithm"),
        ({"logit_scale": -2.3}, "logit_scale = -2.3; .* not its logarithm"),
        ({"logit_scale": float("nan")}, "logit_scale as nan; expected one finite"),
        ({"logit_scale": float("inf")}, "logit_scale as inf"),
        ({"logit_scale": "pair"}, r"logit_scale as float32 \[2\]"),
        ({"logit_scale": None}, "logit_scale as a NoneType"),
        ({"logit_bias": float("nan")}, "logit_bias as nan"),
        ({"queries": "grows", "targets": "grows"}, "width 32 after 16"),
    ],
)
def test_another_output_than_promised_is_named(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        odd(**change).score(vectors(8))


def test_a_module_that_returns_no_mapping_is_named(tmp_path: Path) -> None:
    model = scorer("torch.nn:Identity", columns=["x"])
    # Identity gives the batch back, which is a mapping of x.
    with pytest.raises(ScoringError, match="returned x; expected"):
        model.score(vectors(2))

    model = scorer("torch.nn:ModuleList", columns=["x"])
    with pytest.raises(ScoringError, match="raised NotImplementedError"):
        model.score(vectors(2))


def test_what_the_module_raises_is_told_and_chained() -> None:
    model = scorer("torch.nn:Linear", args={"in_features": 2, "out_features": 2})

    with pytest.raises(
        ScoringError, match="'torch.nn:Linear' raised TypeError"
    ) as info:
        model.score(two_tower.rows(2))
    assert isinstance(info.value.__cause__, TypeError)


# --- memory ---


def test_out_of_memory_halves_the_micro_batch_for_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = scorer(
        "odd_towers:hungry", args={"max_rows": 5}, columns=["x"], micro_batch_size=16
    )
    module: Any = model._module

    first = model.score(vectors(9))
    again = model.score(vectors(9))

    # All rows again with the smaller size: 9 rows in three passes of 4.
    assert module.shapes == [16, 8, 4, 4, 4, 4, 4, 4]
    assert np.array_equal(bits(first), bits(again))
    assert first.queries.shape == (9, 16)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "micro_batch_size = 8; continuing with 4" in caplog.text


def test_a_row_that_does_not_fit_in_memory_is_an_error() -> None:
    model = odd("hungry", max_rows=0)

    with pytest.raises(ScoringError, match="ran out of memory on cpu with one row"):
        model.score(vectors(3))


# --- building it ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float64"}, "dtype: expected one of float32, .*; got 'float64'"),
        ({"micro_batch_size": 0}, "micro_batch_size: at least 1; got 0"),
        ({"columns": []}, "columns: at least one"),
        ({"device": "gpu"}, "device: expected one that torch has here.*; got 'gpu'"),
        ({"factory": "odd_towers:heavy"}, "cannot move its module to 'cpu': "),
        ({"factory": "odd_towers:on_meta"}, "'weight' of its module is on 'meta'"),
        ({"args": {"when": {1, 2}}}, "args: only what JSON can hold"),
        ({"factory": "odd_towers:not_a_module"}, "returned a str; expected a torch.nn"),
        ({"factory": "odd_towers:clashing"}, "two tensors called 'w'"),
        (
            {"factory": "odd_towers:shared", "args": {"expanded": True}},
            "'mask' of its module is an expanded view",
        ),
    ],
)
def test_wrong_configuration_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scorer(**changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_a_configuration_error() -> None:
    with pytest.raises(
        ConfigError, match="expected one that torch has here.*; got 'cuda'"
    ):
        scorer(device="cuda")


def test_building_and_scoring_leave_torchs_generator_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()

    scorer("two_tower:build_unseeded").score(two_tower.rows(3))

    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_the_same_in_every_process() -> None:
    torch.manual_seed(1)
    first = scorer("two_tower:build_unseeded")
    torch.manual_seed(2)
    second = scorer("two_tower:build_unseeded")

    assert first.fingerprint == second.fingerprint
    rows = two_tower.rows(3)
    assert np.array_equal(bits(first.score(rows)), bits(second.score(rows)))


def test_missing_weights_are_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="absent.safetensors' cannot be read"):
        scorer(weights=tmp_path / "absent.safetensors")


# --- weights ---


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Weights of another seed than the scorer's."""
    path = tmp_path / "published.safetensors"
    write_weights(path, two_tower.build(seed=7))
    return path


def test_loading_gives_the_published_model(published: Path) -> None:
    rows = two_tower.rows(5)
    model = scorer()
    before = bits(model.score(rows))

    model.load(published)

    expected = scorer(args={"seed": 7}).score(rows)
    assert np.array_equal(bits(model.score(rows)), bits(expected))
    assert not np.array_equal(bits(expected), before)
    at_start = scorer(weights=published)
    assert np.array_equal(bits(at_start.score(rows)), bits(expected))
    assert at_start.fingerprint == model.fingerprint


def test_weights_of_another_float_dtype_are_cast_and_counters_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bf16.safetensors"
    trained = two_tower.build(seed=7)
    trained.image[2].num_batches_tracked.fill_(300)  # more than bfloat16 can count
    write_weights(path, trained.bfloat16())
    model = scorer()

    model.load(path)

    module: Any = model._module
    assert module.image[2].num_batches_tracked.item() == 300
    assert module.image_out.weight.dtype == torch.float32
    assert torch.equal(
        module.image_out.weight, trained.image_out.weight.detach().float()
    )


def test_a_half_scorer_takes_float32_weights(published: Path) -> None:
    model = scorer(dtype="bfloat16")

    model.load(published)

    module: Any = model._module
    expected = two_tower.build(seed=7).image_out.weight.detach().bfloat16()
    assert torch.equal(module.image_out.weight, expected)


def test_an_attribute_called_module_is_no_wrapper(published: Path) -> None:
    model = scorer("two_tower:build_wrapped")

    model.load(published)

    rows = two_tower.rows(3)
    expected = scorer(args={"seed": 7}).score(rows)
    assert np.array_equal(bits(model.score(rows)), bits(expected))


def test_names_of_a_data_parallel_trainer_fit(tmp_path: Path) -> None:
    path = tmp_path / "ddp.safetensors"
    state = two_tower.build(seed=7).state_dict()
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, path)

    scorer().check(path)


def test_tied_parameters_stay_tied(tmp_path: Path) -> None:
    path = tmp_path / "tied.safetensors"
    module = odd_towers.shared()
    with torch.no_grad():
        module.first.weight.fill_(0.5)
    write_weights(path, module)
    model = odd("shared")

    model.load(path)

    loaded: Any = model._module
    assert loaded.first.weight is loaded.second.weight
    assert torch.equal(loaded.second.weight, module.first.weight.detach())


def misfits(tmp_path: Path, **changes: torch.Tensor | None) -> Path:
    path = tmp_path / "misfit.safetensors"
    state: dict[str, Any] = {**two_tower.build(seed=7).state_dict(), **changes}
    kept = {name: value for name, value in state.items() if value is not None}
    write_weights(path, kept)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias": None}, r"1 missing \(bias float32 \[\]\)"),
        ({"head": torch.ones(2)}, r"1 not in the model \(head\)"),
        (
            {"embed.weight": torch.ones(96, 32)},
            r"of another shape or kind \(embed.weight is F32 \[96, 32\], expected "
            r"float32 \[97, 32\]\)",
        ),
        ({"bias": torch.tensor(3)}, r"bias is I64 \[\], expected float32 \[\]"),
        (
            {"image.2.num_batches_tracked": torch.tensor(3.0)},
            r"is F32 \[\], expected int64 \[\]",
        ),
        (
            {f"extra{i}": torch.ones(1) for i in range(7)},
            r"7 not in the model \(extra0, extra1, extra2, extra3, extra4, ...\)",
        ),
        (
            {"bias": None, "head": torch.ones(2), "embed.weight": torch.ones(1)},
            "1 missing .*; 1 not in the model .*; 1 of another shape .* same architect",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    path = misfits(tmp_path, **changes)
    model = scorer()
    rows = two_tower.rows(3)
    before, fingerprint = bits(model.score(rows)), model.fingerprint

    for use in (model.check, model.load):
        with pytest.raises(SnapshotError, match=message):
            use(path)

    assert np.array_equal(bits(model.score(rows)), before)
    assert model.fingerprint == fingerprint


@pytest.mark.parametrize("keep", [0, 4, 60, 200, -1])
def test_a_corrupt_file_is_a_snapshot_error(
    tmp_path: Path, published: Path, keep: int
) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(published.read_bytes()[:keep])
    model = scorer()

    for use in (model.check, model.load):
        with pytest.raises(SnapshotError, match="not a whole safetensors file"):
            use(path)


def test_a_pickle_is_a_snapshot_error(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(two_tower.build().state_dict(), path)

    with pytest.raises(SnapshotError, match="not a whole safetensors file"):
        scorer().load(path)


def test_an_absent_or_unreadable_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        scorer().check(tmp_path / "absent.safetensors")
    with pytest.raises(StorageError, match="cannot be read"):
        scorer().check(tmp_path)


def test_two_names_for_one_tensor_are_a_snapshot_error(tmp_path: Path) -> None:
    path = tmp_path / "twice.safetensors"
    save_file({"module.bias": torch.ones(1), "bias": torch.ones(1)}, path)

    with pytest.raises(SnapshotError, match="two tensors are called 'bias'"):
        scorer().check(path)


def test_scoring_sees_all_of_the_old_weights_or_all_of_the_new(tmp_path: Path) -> None:
    rows = two_tower.rows(40)
    seeds = (1, 2)
    paths = [tmp_path / f"{seed}.safetensors" for seed in seeds]
    for seed, path in zip(seeds, paths, strict=True):
        write_weights(path, two_tower.build(seed=seed))
    allowed = [bits(scorer(args={"seed": seed}).score(rows)) for seed in seeds]
    model = scorer(args={"seed": 1})
    found: list[np.ndarray] = []
    thread = threading.Thread(
        target=lambda: found.extend(bits(model.score(rows)) for _ in range(60))
    )

    thread.start()
    for path in itertools.cycle(paths):
        model.load(path)
        if not thread.is_alive():
            break

    assert len(found) == 60
    for embeddings in found:
        assert any(np.array_equal(embeddings, whole) for whole in allowed)


# --- fingerprint ---


def test_fingerprint_is_that_of_what_the_outputs_depend_on(published: Path) -> None:
    different = [
        scorer(),
        scorer("two_tower:build_wrapped"),
        scorer(args={"bias": False}),
        scorer(args={"dim": 48}),
        scorer(args={"seed": 1}),
        scorer(dtype="bfloat16"),
        scorer(columns=["tokens", "image"]),
        scorer(weights=published),
    ]
    same = [scorer(), scorer(args={}), scorer(micro_batch_size=3)]

    assert len({model.fingerprint for model in different}) == len(different)
    assert {model.fingerprint for model in same} == {different[0].fingerprint}
    assert len(different[0].fingerprint) == 32


def test_fingerprint_does_not_depend_on_the_order_of_arguments() -> None:
    first = scorer(args={"dim": 16, "seed": 2})
    second = scorer(args={"seed": 2, "dim": 16})

    assert first.fingerprint == second.fingerprint


def test_fingerprint_follows_the_loaded_weights(
    tmp_path: Path, published: Path
) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights_to_bytes(two_tower.build(seed=7)))
    first, second = scorer(), scorer()
    initial = first.fingerprint

    first.load(published)
    second.load(copy)

    assert first.fingerprint == second.fingerprint != initial


def test_one_changed_value_changes_the_fingerprint(tmp_path: Path) -> None:
    trained = two_tower.build()
    with torch.no_grad():
        trained.image_out.weight[3, 5] += 1e-6
    path = tmp_path / "nudged.safetensors"
    write_weights(path, trained)

    assert scorer(weights=path).fingerprint != scorer().fingerprint
