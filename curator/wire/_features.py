"""Features that a trainer computed, as Arrow columns."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from curator.columns import column_to_numpy, rows_from_numpy
from curator.errors import FeatureError
from curator.rpc.v1 import curation_pb2 as pb
from curator.types import Feature, Features, PairEmbeddings

__all__ = ["features_from_wire", "features_to_wire"]

_SIDES = ("queries", "targets")
_OUTPUT = re.compile(r"(learner|reference)\.[a-z_]+")


def features_to_wire(
    features: Features,
) -> tuple[pa.RecordBatch, dict[str, pb.LogitParameters]]:
    """Returns features as columns, and the logit parameters of each model.

    ``learner.embeddings`` becomes ``learner.embeddings.queries`` and
    ``learner.embeddings.targets``; other features stay one column each.
    """
    columns: dict[str, pa.Array] = {}
    logits: dict[str, pb.LogitParameters] = {}
    for name, feature in features.items():
        if isinstance(feature, PairEmbeddings):
            for side in _SIDES:
                columns[f"{name}.{side}"] = rows_from_numpy(getattr(feature, side))
            logits[name.partition(".")[0]] = pb.LogitParameters(
                logit_scale=feature.logit_scale, logit_bias=feature.logit_bias
            )
        else:
            columns[name] = (
                pa.array(feature) if feature.ndim == 1 else rows_from_numpy(feature)
            )
    return pa.RecordBatch.from_pydict(columns), logits


def features_from_wire(rows: pa.RecordBatch, start: pb.SelectStart) -> Features:
    """Returns the features of columns and logit parameters.

    Raises:
        FeatureError: A column is none of a feature's, or is not made of floats.
    """
    arrays = {name: _floats(name, rows.column(name)) for name in rows.schema.names}
    features: dict[str, Feature] = {}
    for role in ("learner", "reference"):
        sides = [arrays.pop(f"{role}.embeddings.{side}", None) for side in _SIDES]
        if sides[0] is not None and sides[1] is not None:
            logits: pb.LogitParameters = getattr(start, role)
            features[f"{role}.embeddings"] = PairEmbeddings(
                sides[0],
                sides[1],
                logits.logit_scale,
                logits.logit_bias if logits.HasField("logit_bias") else None,
            )
    unknown = [name for name in arrays if not _OUTPUT.fullmatch(name)]
    if unknown:
        msg = (
            f"unknown feature columns {sorted(unknown)}; known: ROLE.OUTPUT, such as "
            "learner.loss, ROLE.embeddings.queries and ROLE.embeddings.targets, where "
            "ROLE is learner or reference"
        )
        raise FeatureError(msg)
    return {**features, **arrays}


def _floats(name: str, column: pa.Array) -> np.ndarray:
    array = column_to_numpy(column)
    expected = (2,) if ".embeddings." in name else (1, 2)
    if (
        isinstance(array, list)
        or array.ndim not in expected
        or not np.issubdtype(array.dtype, np.floating)
    ):
        dimensions = " or ".join(map(str, expected))
        msg = (
            f"feature column {name!r}: expected {dimensions}-dimensional floats "
            f"without nulls; got {column.type}"
        )
        raise FeatureError(msg)
    return array
