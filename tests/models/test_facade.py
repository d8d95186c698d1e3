from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import curator.models

# None in sys.modules is how Python itself marks a module that cannot be imported.
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from safetensors.numpy import load
from curator.errors import MissingDependencyError
from curator.models import Scorer, weights_to_bytes

data = weights_to_bytes({"module.w": np.arange(6, dtype=np.float32).reshape(2, 3).T})
print(load(data)["w"].tolist())
try:
    from curator.models import ModuleScorer
except MissingDependencyError as error:
    print(error)
"""


def run(code: str, repository: Path) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout.splitlines()


@pytest.mark.slow
def test_importing_models_imports_no_torch_until_the_scorer_is_used(
    repository: Path,
) -> None:
    code = (
        "import sys, curator.models as models; print('torch' in sys.modules);"
        "models.ModuleScorer; print('torch' in sys.modules)"
    )

    assert run(code, repository) == ["False", "True"]


def test_without_torch_arrays_can_be_published_and_scoring_says_what_to_install(
    repository: Path,
) -> None:
    array, message = run(WITHOUT_TORCH, repository)

    assert array == "[[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]"
    assert "pip install 'batch-curator[torch]'" in message


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ThreeTowerScorer'"):
        _ = curator.models.ThreeTowerScorer  # pyright: ignore[reportAttributeAccessIssue]  # what is tested
