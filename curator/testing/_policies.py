"""Whether a policy keeps its contract.

Shapes: ``B`` is the super-batch size, ``K`` the batch size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from curator.errors import FeatureError
from curator.policies import Policy, RememberingPolicy
from curator.rng import Noise
from curator.types import Feature, Features, PairEmbeddings, Selection

__all__ = ["assert_policy_contract"]

_NOISE = Noise(seed=1, step=2)


def assert_policy_contract(
    policy: Policy,
    make_features: Callable[[int], Features],
    *,
    super_batch_size: int = 64,
    batch_size: int = 24,
) -> None:
    """Asserts that a policy keeps the constraints of :class:`curator.policies.Policy`.

    Args:
        policy: The policy.
        make_features: Makes the features of that many candidates, all finite; and, for
            a policy with memory, a ``memory`` of any number of rows.
        super_batch_size: B, at least 2.
        batch_size: K, at most B / 2 and as large as the policy needs it to be.

    Raises:
        AssertionError: A constraint is broken; the message says which.

    Example:
        >>> from curator.policies import Uniform
        >>> assert_policy_contract(Uniform(), lambda num_candidates: {})
    """
    # Neither sorted nor dense: ids and positions must not be mixed up.
    ids = np.random.default_rng(0).permutation(10 * super_batch_size)[:super_batch_size]
    features = _with_rows(make_features(super_batch_size), np.arange(super_batch_size))
    _check_sizes(policy, ids, features, batch_size)
    _check_needs(policy, ids, features, batch_size)
    _check_repeatable(policy, ids, features, batch_size)
    _check_memory(policy, ids, features, batch_size)
    for name in sorted(policy.needs):
        if not _can_be_spoilt(name, features[name]):
            continue
        spoilt = {**features, name: _spoil(features[name], super_batch_size // 2)}
        _check_quarantine(policy, ids, spoilt, super_batch_size // 2)
        _check_repeatable(policy, ids, spoilt, super_batch_size - batch_size // 2)


def _check_sizes(
    policy: Policy,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    batch_size: int,
) -> None:
    """Exactly ``num_selected`` distinct candidates; all of them; never too many."""
    for num_selected in (batch_size, len(ids)):
        selection = _select(policy, ids, features, num_selected)
        for name in ("num_quarantined", "num_topped_up"):
            found = selection.stats.get(name)
            _require(found == 0, f"stats[{name!r}] must be 0 here; got {found}")
    for num_selected in (0, len(ids) + 1):
        what = f"num_selected={num_selected}"
        _must_raise(policy, ids, features, num_selected, ValueError, what)


def _check_needs(
    policy: Policy,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    batch_size: int,
) -> None:
    """A missing feature is an error, and others are not read."""
    _select(policy, ids, {name: features[name] for name in policy.needs}, batch_size)
    for missing in sorted(policy.needs):
        rest = {name: value for name, value in features.items() if name != missing}
        what = f"a missing {missing!r}"
        _must_raise(policy, ids, rest, batch_size, FeatureError, what)


def _must_raise(
    policy: Policy,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    num_selected: int,
    expected: type[Exception],
    what: str,
) -> None:
    try:
        policy.select(ids, features, num_selected, _NOISE)
        found = "nothing was raised"
    except expected:
        return
    except Exception as error:
        found = f"got {error!r}"
    _require(False, f"{what} must raise {expected.__name__}; {found}")


def _check_repeatable(
    policy: Policy,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    batch_size: int,
) -> None:
    """The same arguments, the same answer; shuffled candidates, the same examples."""
    first = _select(policy, ids, features, batch_size)
    again = _select(policy, ids, features, batch_size)
    _require(_equal(first, again, ids, ids), "two equal calls chose differently")
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(ids))
        shuffled = _with_rows(features, order)
        other = _select(policy, ids[order], shuffled, batch_size)
        _require(
            _equal(first, other, ids, ids[order]),
            "shuffling the candidates changed the examples, their order, scores or "
            "what is remembered",
        )


def _check_memory(
    policy: Policy,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    batch_size: int,
) -> None:
    """What a policy remembers comes back to it as ``memory``, from nothing on."""
    remembers = isinstance(policy, RememberingPolicy)
    _require(
        remembers == ("memory" in policy.needs),
        "a policy that needs 'memory' must say its memory_rows, and no other may",
    )
    if not isinstance(policy, RememberingPolicy):
        return
    limit = policy.memory_rows
    _require(limit >= 1, f"memory_rows must be at least 1; got {limit}")
    width = _memory_of(features).shape[1]
    memory = np.empty((0, width), np.float32)
    for _ in range(3):
        memory.flags.writeable = False
        remembered = {**features, "memory": memory}
        _check_repeatable(policy, ids, remembered, batch_size)
        rows = _select(policy, ids, remembered, batch_size).remember
        _require(rows is not None, "a policy that needs 'memory' must remember rows")
        memory = np.concatenate([memory, np.asarray(rows)])[-limit:]


def _check_quarantine(
    policy: Policy,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    num_spoilt: int,
) -> None:
    """The first ``num_spoilt`` candidates are chosen only when nothing else is left."""
    num_usable = len(ids) - num_spoilt
    for num_missing in (0, 1, num_spoilt):
        selection = _select(policy, ids, features, num_usable + num_missing)
        num_chosen = int((selection.indices < num_spoilt).sum())
        _require(
            num_chosen == num_missing,
            f"{num_chosen} candidates with non-finite features were chosen where "
            f"{num_missing} were missing",
        )
        wanted = {"num_quarantined": num_spoilt, "num_topped_up": num_missing}
        for name, count in wanted.items():
            found = selection.stats.get(name)
            _require(found == count, f"stats[{name!r}] must be {count}; got {found}")


def _select(
    policy: Policy,
    ids: Int64[np.ndarray, " B"],
    features: Features,
    num_selected: int,
) -> Selection:
    """Selects from read-only arrays, and checks the form of the answer."""
    ids = ids.copy()
    ids.flags.writeable = False
    selection = policy.select(ids, features, num_selected, _NOISE)
    indices, weights = selection.indices, selection.weights
    _require(
        indices.shape == (num_selected,) and indices.dtype == np.int64,
        f"indices must be {num_selected} int64; got {indices.shape} {indices.dtype}",
    )
    _require(len(np.unique(indices)) == num_selected, "indices must be distinct")
    _require(
        bool(((indices >= 0) & (indices < len(ids))).all()),
        "indices must be positions in the super-batch",
    )
    _require(
        weights.shape == (num_selected,) and weights.dtype == np.float32,
        f"weights must be {num_selected} float32; got {weights.shape} {weights.dtype}",
    )
    _require(
        bool((np.isfinite(weights) & (weights >= 0)).all()),
        "weights must be finite and at least 0",
    )
    _require(
        selection.scores is None or selection.scores.shape == (num_selected,),
        "scores must be None or one per chosen example",
    )
    _check_remembered(policy, features, selection.remember)
    return selection


def _check_remembered(
    policy: Policy, features: Features, rows: np.ndarray | None
) -> None:
    """Finite float32 rows as wide as the memory; none without a memory."""
    if rows is None:
        return
    _require(
        "memory" in policy.needs,
        "a policy that remembers must need 'memory'; got rows and no such need",
    )
    width = _memory_of(features).shape[1]
    _require(
        rows.ndim == 2 and rows.shape[1] == width and rows.dtype == np.float32,
        f"remembered rows must be float32 of shape (rows, {width}), as the memory is; "
        f"got {rows.dtype} of shape {rows.shape}",
    )
    _require(bool(np.isfinite(rows).all()), "remembered rows must be finite")


def _equal(
    first: Selection,
    second: Selection,
    first_ids: Int64[np.ndarray, " B"],
    second_ids: Int64[np.ndarray, " B"],
) -> bool:
    """Returns whether two selections are the same examples, in the same order."""
    if first.scores is None or second.scores is None:
        same_scores = first.scores is second.scores
    else:
        same_scores = np.array_equal(first.scores, second.scores, equal_nan=True)
    if first.remember is None or second.remember is None:
        same_memory = first.remember is second.remember
    else:
        same_memory = np.array_equal(first.remember, second.remember)
    return (
        same_scores
        and same_memory
        and np.array_equal(first_ids[first.indices], second_ids[second.indices])
        and np.array_equal(first.weights, second.weights)
        and first.stats == second.stats
    )


def _memory_of(features: Features) -> np.ndarray:
    """Returns the memory that was made."""
    memory = features["memory"]
    if not isinstance(memory, np.ndarray) or memory.ndim != 2:
        msg = f"'memory' must be an array of shape (rows, width); got {memory!r}"
        raise AssertionError(msg)
    return memory


def _with_rows(features: Features, rows: Int64[np.ndarray, " _"]) -> Features:
    """Returns the features of some candidates, read-only; memory is of none."""
    chosen = {
        name: _take(value, rows) for name, value in features.items() if name != "memory"
    }
    if "memory" not in features:
        return chosen
    memory = _memory_of(features)
    return {**chosen, "memory": _take(memory, np.arange(len(memory)))}


def _take(feature: Feature, rows: Int64[np.ndarray, " _"]) -> Feature:
    """Returns some rows of a feature, read-only."""
    if isinstance(feature, PairEmbeddings):
        queries, targets = feature.queries[rows], feature.targets[rows]
        queries.flags.writeable = targets.flags.writeable = False
        return dataclasses.replace(feature, queries=queries, targets=targets)
    values = feature[rows]
    values.flags.writeable = False
    return values


def _can_be_spoilt(name: str, feature: Feature) -> bool:
    """Whether a feature says something of candidates, and can say NaN."""
    if isinstance(feature, PairEmbeddings):
        return True
    return name != "memory" and np.issubdtype(feature.dtype, np.floating)


def _spoil(feature: Feature, num_rows: int) -> Feature:
    """Returns a feature with NaN in the first rows."""
    if isinstance(feature, PairEmbeddings):
        targets = feature.targets.copy()
        targets[:num_rows, 0] = np.nan
        return dataclasses.replace(feature, targets=targets)
    values = feature.copy()
    values[:num_rows] = np.nan
    return values


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
