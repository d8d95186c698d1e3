from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import two_tower
from scorers import bits, embed, scorer


@pytest.fixture
def num_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("micro_batch_size", [16, 64])
@pytest.mark.usefixtures("num_threads")
def test_a_row_has_the_same_bits_whichever_rows_it_is_scored_with(
    dtype: str, threads: int, micro_batch_size: int
) -> None:
    torch.set_num_threads(threads)
    rows = two_tower.rows(100)
    model = scorer(dtype=dtype, micro_batch_size=micro_batch_size)
    together = bits(embed(model, rows))
    rng = np.random.default_rng(0)

    for num_rows in (1, 7, 64, 100):
        chosen = rng.choice(100, num_rows, replace=False)
        found = bits(embed(model, rows.take(pa.array(chosen))))
        assert np.array_equal(found, together[chosen])

    # Beginning elsewhere in the Arrow buffers is other alignment.
    assert np.array_equal(bits(embed(model, rows.slice(3))), together[3:])


AWKWARD = """
import numpy as np, pyarrow as pa, torch, two_tower
from scorers import embed, scorer

torch.set_num_threads(2)
rows, same = two_tower.rows(30), []
for size in (7, 10):
    model = scorer(args={"dim": 17}, micro_batch_size=size)
    together = embed(model, rows).queries
    chosen = np.random.default_rng(size).permutation(30)
    apart = embed(model, rows.take(pa.array(chosen))).queries
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
