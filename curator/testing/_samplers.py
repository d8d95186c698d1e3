"""Whether a sampler keeps its contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
from jaxtyping import Float32, Int64

from curator.samplers import (
    EpochPlan,
    EpochPlanner,
    ResumablePlanner,
    Run,
    Sampler,
)

__all__ = ["assert_sampler_contract"]

_Rows = tuple[Int64[np.ndarray, " _"], Float32[np.ndarray, " _"]]


def assert_sampler_contract(
    sampler: Sampler,
    columns: Mapping[str, np.ndarray] | None = None,
    *,
    num_examples: int = 301,
    super_batch_size: int = 16,
    num_epochs: int = 6,
) -> None:
    """Asserts that a sampler keeps the contract of :class:`curator.samplers.Sampler`.

    A run is sampled several times over, with losses of which some are not finite.

    Args:
        sampler: The sampler.
        columns: The columns of the pool that it reads, ``num_examples`` rows each.
        num_examples: Size of the pool.
        super_batch_size: B, at most what an epoch holds.
        num_epochs: How many epochs are planned, at least 3.

    Raises:
        AssertionError: A constraint is broken; the message says which.

    Example:
        >>> from curator.samplers import Uniform
        >>> assert_sampler_contract(Uniform())
    """
    _require(num_epochs >= 3, f"num_epochs must be at least 3; got {num_epochs}")
    given = dict(columns or {})
    missing = sorted(sampler.columns - given.keys())
    _require(not missing, f"the sampler reads columns that were not given: {missing}")
    run = Run(
        num_examples=num_examples,
        super_batch_size=super_batch_size,
        seed=3,
        num_epochs=num_epochs,
        columns={name: _read_only(given[name]) for name in sampler.columns},
    )
    _check_configuration(sampler)
    _check_plans(sampler, run, num_epochs)
    _check_repeatable(sampler, run, num_epochs)
    if sampler.start(run).num_examples_per_epoch is None:
        _check_losses(sampler, run, num_epochs)
        _check_state(sampler, run, num_epochs)
    else:
        _check_any_order(sampler, run, num_epochs)


def _check_configuration(sampler: Sampler) -> None:
    """A frozen dataclass whose fields are all that it is."""
    params = getattr(type(sampler), "__dataclass_params__", None)
    _require(
        params is not None and params.frozen, "a sampler must be a frozen dataclass"
    )
    fields = [f.name for f in dataclasses.fields(cast("Any", sampler)) if f.init]
    again = type(sampler)(**{name: getattr(sampler, name) for name in fields})
    _require(again == sampler, "a sampler of the same fields must be equal to it")


def _check_plans(sampler: Sampler, run: Run, num_epochs: int) -> None:
    """What each plan says is so, and stays so."""
    planner = sampler.start(run)
    _require(
        isinstance(cast("object", planner), EpochPlanner),
        "start() must return a planner: num_examples_per_epoch, plan() and observe()",
    )
    earlier: list[tuple[EpochPlan, _Rows]] = []
    for epoch, plan in _trained(planner, run, num_epochs):
        where = f"the plan of epoch {epoch}"
        ids, weights = _whole(plan, where)
        _require(
            run.super_batch_size <= len(ids) == plan.num_examples,
            f"{where} must have num_examples = {plan.num_examples} ids, and at least "
            f"super_batch_size = {run.super_batch_size}; got {len(ids)}",
        )
        _require(len(np.unique(ids)) == len(ids), f"{where}: ids must be distinct")
        _require(
            bool(((ids >= 0) & (ids < run.num_examples)).all()),
            f"{where}: ids must be of the pool, 0 to {run.num_examples - 1}",
        )
        size = planner.num_examples_per_epoch
        _require(
            size in (None, len(ids)),
            f"{where} must have num_examples_per_epoch = {size}; got {len(ids)}",
        )
        _require(
            bool((np.isfinite(weights) & (weights >= 0)).all()),
            f"{where}: weights must be finite and at least 0",
        )
        mean = float(weights.mean(dtype=np.float64))
        _require(
            abs(mean - plan.mean_weight) <= 1e-5 * abs(mean),
            f"{where}: mean_weight must be the mean of its weights, {mean}; got "
            f"{plan.mean_weight}",
        )
        _check_parts(plan, (ids, weights), where)
        earlier.append((plan, (ids.copy(), weights.copy())))
        if ids.flags.writeable:
            ids[:] = 0  # what was taken is the caller's
    for epoch, (plan, (ids, weights)) in enumerate(earlier):
        found = _whole(plan, f"the plan of epoch {epoch}")
        _require(
            np.array_equal(found[0], ids) and np.array_equal(found[1], weights),
            f"the plan of epoch {epoch} changed by what came after it, or by writing "
            "to the ids that were taken of it",
        )


def _check_parts(plan: EpochPlan, whole: _Rows, where: str) -> None:
    """Any part of a plan is that part, whenever it is asked for."""
    end = plan.num_examples
    for start, stop in ((end // 2, end), (1, end), (0, min(7, end)), (end, end)):
        part = _taken(plan, start, stop, where)
        _require(
            all(
                np.array_equal(ours, theirs[start:stop])
                for ours, theirs in zip(part, whole, strict=True)
            ),
            f"{where}: take({start}, {stop}) must be that part of take(0, {end})",
        )


def _check_repeatable(sampler: Sampler, run: Run, num_epochs: int) -> None:
    """The same calls, the same plans; nobody else's randomness is used or moved."""
    first = _plans(sampler.start(run), run, num_epochs)
    kept = np.random.get_state()  # noqa: NPY002 - what must not be used
    try:
        np.random.seed(7)  # noqa: NPY002
        again = _plans(sampler.start(run), run, num_epochs)
        drawn = np.random.random()  # noqa: NPY002
        np.random.seed(7)  # noqa: NPY002
        expected = np.random.random()  # noqa: NPY002
    finally:
        np.random.set_state(kept)  # noqa: NPY002
    _require(_equal(first, again), "two equal runs were planned differently")
    _require(drawn == expected, "NumPy's global generator was used")


def _check_any_order(sampler: Sampler, run: Run, num_epochs: int) -> None:
    """Plans that need no losses are a function of the epoch alone."""
    expected = _plans(sampler.start(run), run, num_epochs)
    planner = sampler.start(run)
    for epoch in (num_epochs - 1, 0, num_epochs - 2, num_epochs - 1):
        found = _whole(planner.plan(epoch), f"the plan of epoch {epoch}")
        _require(
            _equal([found], [expected[epoch]]),
            f"the plan of epoch {epoch} depends on which were made before it",
        )


def _check_losses(sampler: Sampler, run: Run, num_epochs: int) -> None:
    """A loss that is not finite is one that was not reported."""
    expected = _plans(sampler.start(run), run, num_epochs)
    found = _plans(sampler.start(run), run, num_epochs, keep=np.isfinite)
    _require(
        _equal(expected, found),
        "an example whose loss is not finite must be as one without a loss",
    )


def _check_state(sampler: Sampler, run: Run, num_epochs: int) -> None:
    """A planner that takes a state goes on as the one that gave it."""
    planner = sampler.start(run)
    if not isinstance(planner, ResumablePlanner):
        return
    expected = _plans(planner, run, num_epochs)
    for stop in range(1, num_epochs):
        first, second = sampler.start(run), sampler.start(run)
        _plans(first, run, stop)
        if not (
            isinstance(first, ResumablePlanner) and isinstance(second, ResumablePlanner)
        ):
            continue
        state = {name: array.copy() for name, array in first.state().items()}
        second.restore(stop, state)
        found = _plans(second, run, num_epochs, start=stop)
        _require(
            _equal(expected[stop:], found),
            f"a planner that was restored before epoch {stop} planned otherwise",
        )


def _plans(
    planner: EpochPlanner,
    run: Run,
    num_epochs: int,
    *,
    start: int = 0,
    keep: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[_Rows]:
    return [
        _whole(plan, f"the plan of epoch {epoch}")
        for epoch, plan in _trained(planner, run, num_epochs, start=start, keep=keep)
    ]


def _trained(
    planner: EpochPlanner,
    run: Run,
    num_epochs: int,
    *,
    start: int = 0,
    keep: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[tuple[int, EpochPlan]]:
    """Yields the plans of a run, and reports the losses of each before the next.

    Args:
        planner: The planner.
        run: Its run.
        num_epochs: The epochs.
        start: The first of them.
        keep: Which losses are reported; all by default.
    """
    for epoch in range(start, num_epochs):
        plan = planner.plan(epoch)
        yield epoch, plan
        if planner.num_examples_per_epoch is not None:
            continue
        size = run.super_batch_size
        for first in range(0, plan.num_examples - size + 1, size):
            ids = plan.take(first, first + size)[0][::2].copy()  # a policy's choice
            losses = _losses(ids, epoch)
            if keep is not None:
                kept = keep(losses)
                ids, losses = ids[kept], losses[kept]
            planner.observe(_read_only(ids), _read_only(losses))


def _losses(ids: Int64[np.ndarray, " n"], epoch: int) -> Float32[np.ndarray, " n"]:
    """Returns losses that fall, some faster; a few are not finite."""
    losses = (ids * 7919 % 101 / 20 + 0.1) / (1 + epoch * (ids % 3))
    losses[ids % 29 == 5] = np.nan
    losses[ids % 31 == 6] = np.inf
    return losses.astype(np.float32)


def _whole(plan: EpochPlan, where: str) -> _Rows:
    return _taken(plan, 0, plan.num_examples, where)


def _taken(plan: EpochPlan, start: int, stop: int, where: str) -> _Rows:
    """Returns ids and weights, and checks their form."""
    ids, weights = plan.take(start, stop)
    if weights is None:
        weights = np.ones(len(ids), np.float32)
    for name, values, dtype in (
        ("ids", ids, np.int64),
        ("weights", weights, np.float32),
    ):
        _require(
            values.shape == (stop - start,) and values.dtype == dtype,
            f"{where}: {name} of take({start}, {stop}) must be {stop - start} "
            f"{np.dtype(dtype)}; got {values.shape} {values.dtype}",
        )
    return ids, weights


def _equal(first: list[_Rows], second: list[_Rows]) -> bool:
    return all(
        np.array_equal(ours, theirs)
        for pair in zip(first, second, strict=True)
        for ours, theirs in zip(*pair, strict=True)
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
