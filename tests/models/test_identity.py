"""Which files of weights are told to be of the same model."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from curator import ModelSpec
from curator.errors import ConfigError, SnapshotError, StorageError
from curator.models import check_scores, model_identity

WEIGHTS = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.bias": np.ones(2, np.float16),
    "steps": np.array(3),
}


def spec(path):
    return ModelSpec(factory="m:build", columns=["x"], weights=str(path))


def digest(path):
    return model_identity(spec(path))["weights"]


def saved(path, weights, **options):
    save_file(weights, path, **options)
    return path


def test_weights_saved_again_are_the_same_whatever_order_metadata_and_wrapper(tmp_path):
    first = digest(saved(tmp_path / "a", WEIGHTS))
    reversed_ = dict(reversed(WEIGHTS.items()))
    wrapped = {f"_orig_mod.{name}": value for name, value in WEIGHTS.items()}

    again = saved(tmp_path / "b", reversed_, metadata={"format": "pt"})
    assert again.read_bytes() != (tmp_path / "a").read_bytes()
    assert digest(again) == first
    assert digest(saved(tmp_path / "c", wrapped)) == first


@pytest.mark.parametrize(
    "other",
    [
        {**WEIGHTS, "steps": np.array(4)},
        {**WEIGHTS, "b.weight": WEIGHTS["b.weight"].reshape(3, 2)},
        {**WEIGHTS, "steps": np.array(3, np.uint64)},
        {**{k: v for k, v in WEIGHTS.items() if k != "steps"}, "step": np.array(3)},
        {**WEIGHTS, "more": np.zeros(0)},
    ],
    ids=["value", "shape", "dtype", "name", "one more"],
)
def test_other_weights_are_another_model(tmp_path, other):
    first = digest(saved(tmp_path / "a", WEIGHTS))

    assert digest(saved(tmp_path / "b", other)) != first


def header(text, stated=None):
    data = text.encode()
    return struct.pack("<Q", len(data) if stated is None else stated) + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        header("{"),
        header("[1]"),
        header('{"a": {"dtype": "F32"}}'),
        header('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'),
        header("{}", stated=1 << 62),
        header('{"a": {"dtype": "F32", "shape": [2], "data_offsets": "01"}}'),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, data):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)

    with pytest.raises(SnapshotError, match=r"w\.safetensors' are no safetensors file"):
        digest(path)
    path.unlink()
    with pytest.raises(StorageError, match=r"w\.safetensors' cannot be read: No such"):
        digest(path)


def test_scores_of_before_are_still_told_by_the_file(tmp_path):
    path = saved(tmp_path / "a", WEIGHTS)
    manifest = {
        "format": 2,
        "pool_fingerprint": "p",
        "model_fingerprint": "f",
        "model": json.loads(json.dumps(model_identity(spec(path), of_content=False))),
    }

    def check():
        check_scores(manifest, path="s", pool=("p", "p"), model=("m", spec(path)))

    check()
    saved(path, WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"weights was a set with the digest \w{16}"):
        check()
