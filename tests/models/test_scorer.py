from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import two_tower
from scorers import batch_of, bits, embed, odd, scorer, vectors

from curator.errors import ConfigError, ScoringError, StorageError
from curator.models import ModuleScorer

# --- what comes out ---


@pytest.mark.parametrize("num_rows", [1, 15, 16, 17, 40])
def test_embeddings_are_those_of_the_module(num_rows: int) -> None:
    rows = two_tower.rows(num_rows)
    module = two_tower.build().eval()
    images = torch.tensor(rows.column("image").to_numpy_ndarray().copy())
    tokens = torch.tensor(rows.column("tokens").to_pylist())

    embeddings = embed(scorer(), rows)

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
    embeddings = embed(scorer(args={"bias": False}), two_tower.rows(3))

    assert embeddings.logit_bias is None


def test_a_bias_of_one_element_is_a_number() -> None:
    assert embed(odd(logit_bias="tensor_bias"), vectors(3)).logit_bias == -2.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_float32_and_comes_back_as_float32(dtype: str) -> None:
    rows = two_tower.rows(20)

    embeddings = embed(scorer(dtype=dtype), rows)

    assert embeddings.queries.dtype == np.float32
    norms = np.linalg.norm(embeddings.queries, axis=1)
    np.testing.assert_allclose(norms, 1.0, atol=1e-6)
    np.testing.assert_allclose(
        embeddings.queries, embed(scorer(), rows).queries, atol=0.05
    )
    assert not np.array_equal(embeddings.queries, embed(scorer(), rows).queries)


@pytest.mark.parametrize("bad", [0.0, 1e-30, np.nan, np.inf, -np.inf, 3e38])
def test_a_row_without_direction_is_nan_and_leaves_the_others_alone(bad: float) -> None:
    values = np.ones((6, 16), np.float32)
    values[2] = bad

    embeddings = embed(odd(), batch_of(values))

    assert np.isnan(embeddings.queries[2]).all()
    np.testing.assert_allclose(np.delete(embeddings.queries, 2, axis=0), 0.25)


def test_one_bad_value_makes_the_whole_row_nan() -> None:
    values = np.ones((2, 16), np.float32)
    values[1, 5] = np.inf

    embeddings = embed(odd(), batch_of(values))

    assert np.isnan(embeddings.targets[1]).all()


# --- what goes in ---


def inspected(column: pa.Array, **changes: Any) -> tuple[Any, ModuleScorer]:
    given: dict[str, Any] = {"micro_batch_size": len(column), **changes}
    model = scorer("odd_towers:inspector", columns=["x"], **given)
    embed(model, pa.record_batch({"x": column}))
    module: Any = model._hosted.module
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

    module: Any = model._hosted.module
    assert batch["grad"] is False
    assert module.training is False


def test_missing_column_says_which_ones_there_are() -> None:
    with pytest.raises(ScoringError, match="reads 'x'; the rows have: image, caption"):
        embed(odd(), two_tower.rows(2))


def test_nulls_are_counted() -> None:
    rows = pa.record_batch({"x": pa.array([1.0, None, None])})

    with pytest.raises(ScoringError, match="2 of 3 rows have a null"):
        embed(odd(), rows)


def test_nulls_within_rows_are_told() -> None:
    pairs = pa.array([[1.0, None], [1.0, 2.0]], pa.list_(pa.float32(), 2))
    rows = pa.record_batch({"x": pairs})

    with pytest.raises(ScoringError, match="reads 'x': rows have nulls in them: fill"):
        embed(odd(), rows)


def test_a_model_that_wants_to_exit_has_failed() -> None:
    model = scorer("odd_towers:exiting", columns=["x"])

    with pytest.raises(ScoringError, match="'odd_towers:exiting' raised SystemExit: 3"):
        embed(model, vectors(2))


def test_no_rows_is_a_programmers_mistake() -> None:
    with pytest.raises(ValueError, match="no rows"):
        embed(odd(), vectors(0))


# --- memory ---


def test_out_of_memory_halves_the_micro_batch_for_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = scorer(
        "odd_towers:hungry", args={"max_rows": 5}, columns=["x"], micro_batch_size=16
    )
    module: Any = model._hosted.module

    first = embed(model, vectors(9))
    again = embed(model, vectors(9))

    # All rows again with the smaller size: 9 rows in three passes of 4.
    assert module.shapes == [16, 8, 4, 4, 4, 4, 4, 4]
    assert np.array_equal(bits(first), bits(again))
    assert first.queries.shape == (9, 16)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "micro_batch_size = 8; continuing with 4" in caplog.text


def test_input_that_does_not_fit_in_memory_is_halved_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = scorer(columns=["image", "tokens"], micro_batch_size=16)
    expected = embed(scorer(micro_batch_size=8), two_tower.rows(20))
    pad = ModuleScorer._padded

    def padded(self: ModuleScorer, values: Any, size: int) -> Any:
        if size > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return pad(self, values, size)

    monkeypatch.setattr(ModuleScorer, "_padded", padded)

    found = embed(model, two_tower.rows(20))

    assert np.array_equal(bits(found), bits(expected))


def test_input_is_made_ready_while_another_thread_has_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = scorer()
    prepare, forward = ModuleScorer._prepared, ModuleScorer._forward
    ready, at_work = threading.Barrier(2), threading.Event()

    def prepared(self: ModuleScorer, *arguments: Any) -> Any:
        made = prepare(self, *arguments)
        if at_work.is_set():  # the second thread, while the first is in the model
            ready.wait(30)
        return made

    def forwarded(self: ModuleScorer, batch: Any) -> object:
        if not at_work.is_set():
            at_work.set()
            ready.wait(30)
        return forward(self, batch)

    monkeypatch.setattr(ModuleScorer, "_prepared", prepared)
    monkeypatch.setattr(ModuleScorer, "_forward", forwarded)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(embed, model, two_tower.rows(16))
        assert at_work.wait(30)
        second = threads.submit(embed, model, two_tower.rows(16))

        assert np.array_equal(bits(first.result()), bits(second.result()))


def test_a_row_that_does_not_fit_in_memory_is_an_error() -> None:
    model = odd("hungry", max_rows=0)

    with pytest.raises(ScoringError, match="ran out of memory on cpu with one row"):
        embed(model, vectors(3))


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
        ConfigError, match=r"expected one that torch has here.*; got 'cuda'"
    ):
        scorer(device="cuda")


def test_building_and_scoring_leave_torchs_generator_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()

    embed(scorer("two_tower:build_unseeded"), two_tower.rows(3))

    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_the_same_in_every_process() -> None:
    torch.manual_seed(1)
    first = scorer("two_tower:build_unseeded")
    torch.manual_seed(2)
    second = scorer("two_tower:build_unseeded")

    assert first.fingerprint == second.fingerprint
    rows = two_tower.rows(3)
    assert np.array_equal(bits(embed(first, rows)), bits(embed(second, rows)))


def test_missing_weights_are_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"absent.safetensors' cannot be read"):
        scorer(weights=tmp_path / "absent.safetensors")
