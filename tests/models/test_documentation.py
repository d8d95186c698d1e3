from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scorers import lists_of

from curator.config import parse_config
from curator.models import ScoreTable, build_scorer
from curator.types import PairEmbeddings

NUM_ROWS = 5


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "models.md").read_text(encoding="utf-8")


def modules(page: str) -> dict[str, str]:
    """Returns the files that the page has whole, by module name."""
    return dict(
        re.findall(r"`(\w+)\.py`, whole:\n\n```python\n(.*?)```", page, re.DOTALL)
    )


def models(page: str) -> dict[str, dict[str, Any]]:
    """Returns the models that the page configures, as TOML gives them."""
    found: dict[str, dict[str, Any]] = {}
    for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL):
        found |= tomllib.loads(block)["models"]
    return found


@pytest.fixture
def rows() -> pa.RecordBatch:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (NUM_ROWS, 3, 32, 32), np.uint8)
    return pa.record_batch(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(images),
            "tokens": lists_of(rng.integers(0, 512, (NUM_ROWS, 8))),
            "answer": lists_of(np.arange(8) >= np.arange(1, 6)[:, None]),
            "class": rng.integers(0, 10, NUM_ROWS),
        }
    )


def test_there_is_an_example_of_every_kind(page: str) -> None:
    kinds = {table.get("kind", "two_tower") for table in models(page).values()}

    assert kinds == {"two_tower", "classifier", "causal_lm", "table"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["clip-mini", "classes", "words"])
def test_the_examples_of_the_documentation_score(
    tmp_path: Path,
    page: str,
    rows: pa.RecordBatch,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    dtype: str,
) -> None:
    # Under names of their own: modules are imported once in a process.
    table = {**models(page)[name], "dtype": dtype}
    table.pop("weights", None)
    module, _, function = table["factory"].partition(":")
    table["factory"] = f"documented_{module}_{dtype}:{function}"
    path = tmp_path / f"documented_{module}_{dtype}.py"
    path.write_text(modules(page)[module], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    spec = parse_config({"models": {name: table}}).models[name]

    found = build_scorer(spec).score(rows, spec.outputs or frozenset())

    assert found.keys() == spec.outputs
    for feature in found.values():
        if isinstance(feature, PairEmbeddings):
            assert feature.queries.shape == (NUM_ROWS, 64)
            assert feature.logit_bias == -10.0
            feature = feature.queries
        assert len(feature) == NUM_ROWS
        assert np.isfinite(feature).all()


def test_the_table_of_the_documentation_is_read(
    tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(import numpy.*?)```", page, re.DOTALL)

    exec(code, {})

    table = ScoreTable(models(page)["irreducible"]["path"])
    assert table.outputs == {"loss"}
    assert table.num_missing(1000) == 0


def test_outputs_are_those_of_each_kind(page: str) -> None:
    for name, table in models(page).items():
        spec = parse_config({"models": {name: table}}).models[name]
        kind = f"| `{spec.kind}`"
        (row,) = (line for line in page.splitlines() if line.startswith(kind))
        if spec.outputs is not None:
            assert set(re.findall(r"`(\w+)`", row)) == {spec.kind, *spec.outputs}
