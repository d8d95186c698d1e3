from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curator.models import TwoTowerScorer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_example_of_the_documentation_scores(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    text = (repository / "docs" / "models.md").read_text(encoding="utf-8")
    code, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (config,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    spec = tomllib.loads(config)["models"]["clip-mini"]
    module = f"documented_{dtype}"
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (5, 3, 32, 32), np.uint8)
    rows = pa.record_batch(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(images),
            "tokens": pa.FixedSizeListArray.from_arrays(pa.array(range(20)), 4),
        }
    )

    embeddings = TwoTowerScorer(
        factory=spec["factory"].replace("towers", module),
        args=spec["args"],
        weights=None,
        device=spec["device"],
        dtype=dtype,
        micro_batch_size=spec["micro_batch_size"],
        columns=spec["columns"],
    ).score(rows)

    assert embeddings.queries.shape == (5, 64)
    assert np.isfinite(embeddings.queries).all()
    assert embeddings.logit_bias == -10.0
