from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import odd_towers
import pytest
import torch
import two_tower
from safetensors.torch import save_file
from scorers import bits, embed, odd, scorer

from curator.errors import SnapshotError, StorageError
from curator.models import weights_to_bytes, write_weights


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Weights of another seed than the scorer's."""
    path = tmp_path / "published.safetensors"
    write_weights(path, two_tower.build(seed=7))
    return path


def test_loading_gives_the_published_model(published: Path) -> None:
    rows = two_tower.rows(5)
    model = scorer()
    before = bits(embed(model, rows))

    model.load(published)

    expected = embed(scorer(args={"seed": 7}), rows)
    assert np.array_equal(bits(embed(model, rows)), bits(expected))
    assert not np.array_equal(bits(expected), before)
    at_start = scorer(weights=published)
    assert np.array_equal(bits(embed(at_start, rows)), bits(expected))
    assert at_start.fingerprint == model.fingerprint


def test_weights_of_another_float_dtype_are_cast_and_counters_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bf16.safetensors"
    trained = two_tower.build(seed=7)
    # More than bfloat16 can count to by one.
    trained.get_buffer("image.2.num_batches_tracked").fill_(301)
    write_weights(path, trained.bfloat16())
    model = scorer()

    model.load(path)

    module: Any = model._hosted.module
    assert module.image[2].num_batches_tracked.item() == 301
    assert module.image_out.weight.dtype == torch.float32
    assert torch.equal(
        module.image_out.weight, trained.image_out.weight.detach().float()
    )


def test_a_half_scorer_takes_float32_weights(published: Path) -> None:
    model = scorer(dtype="bfloat16")

    model.load(published)

    module: Any = model._hosted.module
    expected = two_tower.build(seed=7).image_out.weight.detach().bfloat16()
    assert torch.equal(module.image_out.weight, expected)


def test_an_attribute_called_module_is_no_wrapper(published: Path) -> None:
    model = scorer("two_tower:build_wrapped")

    model.load(published)

    rows = two_tower.rows(3)
    expected = embed(scorer(args={"seed": 7}), rows)
    assert np.array_equal(bits(embed(model, rows)), bits(expected))


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

    loaded: Any = model._hosted.module
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
            (
                r"of another shape or kind \(embed.weight is F32 \[96, 32\], expected "
                r"float32 \[97, 32\]\)"
            ),
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
    before, fingerprint = bits(embed(model, rows)), model.fingerprint

    for use in (model.check, model.load):
        with pytest.raises(SnapshotError, match=message):
            use(path)

    assert np.array_equal(bits(embed(model, rows)), before)
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
    allowed = [bits(embed(scorer(args={"seed": seed}), rows)) for seed in seeds]
    model = scorer(args={"seed": 1})
    found: list[np.ndarray] = []
    thread = threading.Thread(
        target=lambda: found.extend(bits(embed(model, rows)) for _ in range(60))
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
