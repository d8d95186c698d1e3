"""What a policy that is not ours may return, and what it gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import worlds
from worlds import UNIFORM, served

from curator.engine._selection import select
from curator.errors import FeatureError, ScoringError
from curator.policies import POLICIES
from curator.rng import Noise
from curator.types import Selection, SuperBatch


def chosen(indices: Any, weights: Any = None) -> Selection:
    """Returns a selection that says what no selection may."""
    made = Selection(np.arange(1), np.ones(1, np.float32))
    indices = np.asarray(indices)
    weights = np.ones(len(indices)) if weights is None else np.asarray(weights)
    object.__setattr__(made, "indices", indices)
    object.__setattr__(made, "weights", weights)
    return made


@dataclasses.dataclass(frozen=True)
class Mine:
    """Returns what it is told to, or raises it."""

    name: ClassVar[str] = "mine"
    needs: ClassVar[frozenset[str]] = frozenset()

    says: Any = None

    def select(self, *_: object) -> Any:
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says


BATCH = SuperBatch(step=7, epoch=0, ids=np.arange(10, 16))


def selected(says: Any) -> Selection:
    policy: Any = Mine(says)
    return select(policy, BATCH, {}, 3, Noise(seed=0, step=7))


def test_what_it_may_return_is_returned() -> None:
    made = chosen([5, 0, 3], [0.0, 2.0, 1.0])

    assert selected(made) is made


@pytest.mark.parametrize(
    ("says", "fault"),
    [
        (None, "it returned a NoneType"),
        (np.arange(3), "it returned a ndarray"),
        (chosen([0, 1]), r"it returned int64 of shape \(2,\)"),
        (chosen([[0, 1, 2]]), r"it returned int64 of shape \(1, 3\)"),
        (chosen([0.0, 1.0, 2.0]), r"it returned float64 of shape \(3,\)"),
        (chosen([0, 1, 6]), "it returned positions from 0 to 6"),
        (chosen([0, -1, 2]), "it returned positions from -1 to 2"),
        (chosen([4, 2, 4]), "it returned 2 distinct ones"),
        (chosen([0, 1, 2], [1.0, 1.0]), r"its weights are float64 of shape \(2,\)"),
        (chosen([0, 1, 2], ["a", "b", "c"]), "its weights are <U1"),
        (chosen([0, 1, 2], [1.0, np.nan, 1.0]), "its weights are from nan to nan"),
        (chosen([0, 1, 2], [1.0, -1.0, 1.0]), r"its weights are from -1\.0 to 1\.0"),
    ],
)
def test_what_it_may_not_return_is_told(says: Any, fault: str) -> None:
    message = rf"^policy Mine\(.*\) has to select 3 distinct .* at step 7 {fault}"

    with pytest.raises(ScoringError, match=r"(?s)" + message):
        selected(says)


@pytest.mark.parametrize("error", [KeyError("oops"), SystemExit(3)])
def test_what_it_raises_is_told_with_its_name(error: BaseException) -> None:
    with pytest.raises(ScoringError, match=r"^policy Mine\(.* raised .* at step 7: "):
        selected(error)


def test_errors_of_ours_are_left_as_they_are() -> None:
    with pytest.raises(FeatureError, match=r"^no loss$"):
        selected(FeatureError("no loss"))


@pytest.mark.parametrize("kind", ["local", "grpc"])
def test_a_session_fails_and_its_ledger_has_nothing_of_it(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Twice:
        name: ClassVar[str] = "twice"
        needs: ClassVar[frozenset[str]] = frozenset()

        def select(self, ids: Any, features: Any, num: int, noise: Noise) -> Selection:
            return Selection(np.zeros(num, np.int64), np.ones(num, np.float32))

    monkeypatch.setitem(POLICIES, "twice", Twice)
    spec = dataclasses.replace(UNIFORM, super_batch_size=16, policy=Twice())
    with served(worlds.config(tmp_path, s=spec), kind=kind) as service:
        session = service.open("s")

        with pytest.raises(ScoringError, match=r"Twice\(\) has .* 1 distinct ones"):
            next(session.batches())
        assert session.describe().num_defined == 0
