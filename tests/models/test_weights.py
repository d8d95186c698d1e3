from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import odd_towers
import pytest
import torch
import two_tower
from safetensors.numpy import load as load_arrays
from safetensors.torch import load
from small_disk import small_disk
from torch import nn

from curator.errors import SnapshotError, StorageError
from curator.models import weights_to_bytes, write_weights
from curator.models._weights import plain_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("module.image.weight", "image.weight"),
        ("_orig_mod.image.weight", "image.weight"),
        ("module._orig_mod.w", "w"),
        ("image._orig_mod.layers.0.module.w", "image.layers.0.w"),
        ("_fsdp_wrapped_module.a._checkpoint_wrapped_module.w", "a.w"),
        ("modules.w", "modules.w"),
        ("module", "module"),
        ("w", "w"),
    ],
)
def test_wrappers_prefixes_are_removed_anywhere(name: str, expected: str) -> None:
    assert plain_name(name) == expected


def same_tensors(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )


def test_a_module_gives_its_state() -> None:
    module = two_tower.build()

    assert same_tensors(load(weights_to_bytes(module)), module.state_dict())


@pytest.mark.slow
def test_wrapped_modules_give_the_names_of_the_module_inside() -> None:
    module = two_tower.build()
    compiled: Any = torch.compile(module, backend="eager")
    parallel = nn.DataParallel(module)

    assert "_orig_mod.bias" in compiled.state_dict()
    assert "module.bias" in parallel.state_dict()
    for wrapped in (compiled, parallel):
        assert same_tensors(load(weights_to_bytes(wrapped)), module.state_dict())


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool]
)
def test_every_dtype_survives(dtype: torch.dtype) -> None:
    values = {
        "w": torch.tensor([[0, 1], [1, 0]]).to(dtype),
        "s": torch.ones(()).to(dtype),
    }

    assert same_tensors(load(weights_to_bytes(values)), values)


def test_tied_and_overlapping_tensors_are_each_written_whole() -> None:
    base = torch.arange(12.0)
    values = {"a": base, "b": base, "head": base[:4], "tail": base[2:].reshape(2, 5)}

    assert same_tensors(load(weights_to_bytes(values)), values)
    assert load(weights_to_bytes(odd_towers.shared())).keys() == {
        "first.weight",
        "second.weight",
    }


def test_tensors_in_any_memory_order_and_with_gradients_are_taken() -> None:
    values = {
        "t": torch.arange(6.0).reshape(2, 3).T.requires_grad_(),
        "c": torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "none": torch.empty(0, 3),
        "empty": torch.empty(0, 3),
    }

    written = load(weights_to_bytes(values))

    assert same_tensors(written, {name: t.detach() for name, t in values.items()})


def test_numpy_arrays_are_taken_in_any_order_and_endianness() -> None:
    values = {
        "module.t": np.arange(6.0).reshape(2, 3).T,
        "big": np.arange(3, dtype=">f4"),
        "scale": np.array(2.5, np.float32),
        "read_only": np.frombuffer(b"\x01\x02", np.uint8),
    }

    written = load_arrays(weights_to_bytes(values))

    assert written.keys() == {"t", "big", "scale", "read_only"}
    np.testing.assert_array_equal(written["t"], values["module.t"])
    np.testing.assert_array_equal(written["big"], [0, 1, 2])
    assert written["scale"].shape == ()
    assert written["scale"] == 2.5
    assert written["read_only"].tolist() == [1, 2]


def test_the_bytes_are_the_same_for_the_same_weights() -> None:
    assert weights_to_bytes(two_tower.build()) == weights_to_bytes(two_tower.build())


class Sharded(torch.Tensor):
    """A tensor subclass that keeps its values elsewhere, as DTensor does."""

    def __tensor_flatten__(self) -> None: ...


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, "cannot take weights from a int: give a torch.nn.Module"),
        ([torch.ones(1)], "cannot take weights from a list"),
        ({"w": torch.ones(1), "step": 3}, "'step': a int; all values must be torch"),
        ({"w": 1.5}, "'w': a float; all values must be torch tensors or NumPy"),
        ({"w": torch.ones(1), "v": np.ones(1)}, "'v': a ndarray; all values .* torch"),
        ({"w": np.array([None])}, "'w': an array of Python objects"),
        ({"w": np.array(["a"])}, "cannot be written as safetensors: .*"),
        ({"w": torch.ones(2, 2).to_sparse()}, "'w': a sparse tensor .* to_dense"),
        ({"w": torch.ones(1, device="meta")}, "'w': a meta tensor has no values"),
        (
            {"w": torch.ones(1).as_subclass(Sharded)},
            "'w': a Sharded is not a plain tensor: call full_tensor",
        ),
        (
            {"module.w": torch.ones(1), "w": torch.ones(1)},
            "two tensors are called 'w' .* the second one is 'w'",
        ),
    ],
)
def test_what_is_no_weight_is_named(model: object, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        weights_to_bytes(model)


@pytest.mark.filterwarnings("ignore:.*quantize:")
def test_quantised_tensors_are_refused() -> None:
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)

    with pytest.raises(SnapshotError, match="'w': a quantised tensor: call dequant"):
        weights_to_bytes({"w": quantised})


def test_an_optimiser_is_no_model() -> None:
    optimiser = torch.optim.SGD(two_tower.build().parameters(), lr=0.1)

    with pytest.raises(SnapshotError, match="'state': a dict"):
        weights_to_bytes(optimiser)


# --- files ---


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"

    write_weights(path, {"w": np.zeros(3)})
    write_weights(str(path), {"w": np.ones(5)})

    assert load_arrays(path.read_bytes())["w"].tolist() == [1.0] * 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "model.safetensors"

    with pytest.raises(StorageError, match=r"cannot write \d+ bytes .*No such file"):
        write_weights(path, {"w": np.zeros(3)})


def test_a_folder_in_the_way_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.mkdir()

    with pytest.raises(StorageError, match="Is a directory"):
        write_weights(path, {"w": np.zeros(3)})
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_weights_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, {"w": np.zeros(3)})

    with pytest.raises(SnapshotError, match="'w': a str"):
        write_weights(path, {"w": "zeros"})
    assert load_arrays(path.read_bytes())["w"].tolist() == [0.0] * 3


def test_a_full_disk_says_how_much_was_needed_and_keeps_the_old_file(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        path = disk / "model.safetensors"
        write_weights(path, {"w": np.zeros(100, np.float32)})
        message = r"no space left to write 40\d{4} bytes of weights to .*model.safe"

        with pytest.raises(StorageError, match=message):
            write_weights(path, {"w": np.ones(100_000, np.float32)})

        assert load_arrays(path.read_bytes())["w"].tolist() == [0.0] * 100
        assert [entry.name for entry in disk.iterdir()] == ["model.safetensors"]
