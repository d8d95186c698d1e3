from __future__ import annotations

from typing import Any

import pytest
import two_tower
from scorers import embed, odd, scorer, vectors

from curator.errors import ScoringError


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
        embed(odd(**change), vectors(8))


def test_a_module_that_returns_other_columns_is_told() -> None:
    model = scorer("torch.nn:Identity", columns=["x"])
    # Identity gives the batch back, which is a mapping of x.
    with pytest.raises(ScoringError, match="returned x; expected"):
        embed(model, vectors(2))


@pytest.mark.parametrize(
    ("factory", "arguments", "error"),
    [
        ("torch.nn:Linear", {"in_features": 2, "out_features": 2}, TypeError),
        ("torch.nn:Flatten", {}, AttributeError),
    ],
)
def test_what_the_module_raises_is_told_and_chained(
    factory: str, arguments: dict[str, int], error: type[Exception]
) -> None:
    model = scorer(factory, args=arguments)

    with pytest.raises(
        ScoringError, match=f"'{factory}' raised {error.__name__}"
    ) as info:
        embed(model, two_tower.rows(2))
    assert isinstance(info.value.__cause__, error)
