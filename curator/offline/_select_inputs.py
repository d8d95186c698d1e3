"""What a selection reads: outputs of models, and columns of the pool.

Shapes: ``N`` examples that have scores.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, Shaped

from curator.config import MODEL_OUTPUTS, Config, did_you_mean
from curator.engine import feature_values
from curator.errors import ConfigError
from curator.offline._pools import open_configured_pool
from curator.offline._scores import Scores
from curator.pools import Pool
from curator.scores import SCORES, Score
from curator.types import Feature

__all__ = ["Inputs", "open_inputs"]

_ROLES = ("learner", "reference")
_POOL = "pool."
_BLOCK = 8192


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Scores by the role of their model, and the pool.

    Attributes:
        scores: Under ``learner`` and ``reference``; or, where there is one model for
            all that is asked for, under ``scores``.
        ids: Of the examples, ascending.
        pool: Which was scored, where it was named.
        scratch: Folder for what does not fit into memory, if that is of use.
    """

    scores: Mapping[str, Scores]
    ids: Int64[np.ndarray, " N"]
    pool: Pool | None
    scratch: Path | None

    @property
    def names(self) -> dict[str, tuple[Scores, str]]:
        """Every number that scores have, by the name that a user has for it."""
        return {
            output if role == "scores" else f"{role}.{output}": (scores, output)
            for role, scores in self.scores.items()
            for output in scores.numbers
        }

    @property
    def columns(self) -> pa.Schema:
        """The columns of the pool that can be read: all, or those that were copied."""
        if self.pool is not None:
            return self.pool.schema
        fields = [field for scores in self.scores.values() for field in scores.columns]
        return pa.schema({field.name: field for field in fields}.values())

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yields columns of the pool, of all examples in order.

        Raises:
            PoolError: The pool cannot be read.
            StorageError: Scores cannot be read.
        """
        for scores in self.scores.values():
            if set(columns) <= set(scores.columns.names):
                yield from scores.blocks(columns)
                return
        if self.pool is not None:
            for start in range(0, len(self.ids), _BLOCK):
                yield self.pool.take(self.ids[start : start + _BLOCK], columns)
            return
        # Some from each. Both are in the order of the ids; their blocks are not alike.
        tables: list[pa.Table] = []
        left = set(columns)
        for scores in self.scores.values():
            mine = sorted(left.intersection(scores.columns.names))
            left -= set(mine)
            if mine:
                tables.append(pa.Table.from_batches(scores.blocks(mine)))
        joined = pa.table(
            {name: table[name] for table in tables for name in table.column_names}
        )
        yield from joined.select(list(columns)).to_batches(_BLOCK)

    def check(self, needs: frozenset[str], what: str) -> None:
        """Checks that all features are there.

        Args:
            needs: Their names.
            what: Needs them, for the message.

        Raises:
            ConfigError: One is not.
        """
        roles = {need.partition(".")[0] for need in needs}
        if "scores" in self.scores and roles.issuperset(_ROLES):
            of_models = sorted(need for need in needs if need.startswith(_ROLES))
            msg = (
                f"{what} needs {', '.join(of_models)}, which two models say: give the "
                "scores of each, as learner and reference (--learner SCORES "
                "--reference SCORES). SCORES that have all of it serve one of the two: "
                "say which by the policy's options, such as -o loss=reference.loss or "
                "-o embeddings=learner.embeddings"
            )
            raise ConfigError(msg)
        for need in sorted(needs):
            role, _, name = need.partition(".")
            if role in _ROLES:
                self._check_output(role, name, what)
            elif role == "pool":
                self._check_column(name, what)
            else:
                msg = (
                    f"{what} needs {need!r}, which is no feature: its name begins with "
                    "learner., reference. or pool."
                )
                raise ConfigError(msg)

    def feature(self, name: str) -> Feature:
        """Returns a feature of all examples; see :meth:`check`.

        Raises:
            ConfigError: It is no numbers, or takes more memory than there is.
            FeatureError: A column of the pool is neither numbers nor strings.
            PoolError: The pool cannot be read.
            StorageError: Scores cannot be read.
        """
        role, _, output = name.partition(".")
        if role == "pool":
            return self._pool_column(output)
        scores = self.scores.get(role) or self.scores["scores"]
        return scores.read(output, scratch=self.scratch)

    def values(self, name: str) -> Shaped[np.ndarray, " N"]:
        """Returns one value per example: an output, a column of the pool, or a score.

        Args:
            name: ``loss`` of the only model, ``learner.loss``, ``learnability``,
                ``pool.domain``, or ``domain`` where nothing else has that name.

        Raises:
            ConfigError: There is none of that name.
            CuratorError: As :meth:`feature`.
        """
        what = f"{name!r}"
        if "scores" in self.scores and name in self.scores["scores"].numbers:
            values = self.scores["scores"].read(name)
        elif name in SCORES:
            return self.score(SCORES[name])
        elif name.partition(".")[0] in (*_ROLES, "pool"):
            self.check(frozenset([name]), what)
            values = self.feature(name)
        elif name in self.columns.names:
            values = self._pool_column(name)
        else:
            known = [*self.names, *(f"{_POOL}{c}" for c in self.columns.names)]
            known += [score for score in SCORES if self._has(SCORES[score])]
            hint = did_you_mean(name, list(dict.fromkeys(known)))
            msg = f"where: there is no {name!r}{hint}"
            raise ConfigError(msg)
        if not isinstance(values, np.ndarray) or values.ndim != 1:
            msg = f"where: {name!r} is not one value per example"
            raise ConfigError(msg)
        return values

    def score(self, score: Score) -> Shaped[np.ndarray, " N"]:
        """Returns a score of losses, of all examples."""
        needs = frozenset(name for name, _ in score.terms)
        self.check(needs, f"the score of {', '.join(sorted(needs))}")
        total = np.zeros(len(self.ids))
        for name, coefficient in score.terms:
            values = self.feature(name)
            assert isinstance(values, np.ndarray)  # outputs of the terms are numbers
            with np.errstate(over="ignore", invalid="ignore"):
                total += coefficient * values
        return total

    def _has(self, score: Score) -> bool:
        """Whether there is what a score is made of."""
        try:
            self.check(frozenset(name for name, _ in score.terms), "")
        except ConfigError:
            return False
        return True

    def _check_output(self, role: str, name: str, what: str) -> None:
        scores = self.scores.get(role) or self.scores.get("scores")
        if scores is None:
            given = next(iter(self.scores))
            msg = (
                f"{what} needs {role}.{name}: give the {role}'s scores too; got those "
                f"of the {given}"
            )
            raise ConfigError(msg)
        if name in scores.outputs:
            return
        kinds = sorted(kind for kind, given in MODEL_OUTPUTS.items() if name in given)
        hint = "no model of this project computes it"
        if kinds:
            hint = (
                f"compute it with 'curator score --outputs {name}', by a model of kind "
                f"{' or '.join(kinds)}"
            )
        msg = (
            f"{what} needs {role}.{name}; the scores {str(scores.path)!r} have "
            f"{', '.join(sorted(scores.outputs)) or 'no outputs'}: {hint}"
        )
        raise ConfigError(msg)

    def _check_column(self, name: str, what: str) -> None:
        if name in self.columns.names:
            return
        if self.pool is None:
            msg = (
                f"{what} needs {_POOL}{name}, a column of the pool: name the pool that "
                "was scored (--config CONFIG.toml --pool NAME)"
            )
            raise ConfigError(msg)
        hint = did_you_mean(name, self.columns.names)
        msg = f"{what} needs {_POOL}{name}, which the pool has not{hint}"
        raise ConfigError(msg)

    def _pool_column(self, name: str) -> np.ndarray:
        """Returns a column of the pool; rows of numbers as such."""
        blocks = self.blocks([name])
        return np.concatenate(
            [feature_values(name, rows.column(name)) for rows in blocks]
        )


@contextlib.contextmanager
def open_inputs(
    paths: Mapping[str, Path | None],
    config: Config | None,
    pool_name: str | None,
    *,
    scratch: Path | None = None,
) -> Generator[Inputs]:
    """Opens scores, and the pool that they are of.

    Args:
        paths: Of the scores, by role; None where a role has none.
        config: Has the pool.
        pool_name: Its name, where it is to be read.
        scratch: See :class:`Inputs`.

    Raises:
        ConfigError: There are none, they are not finished, or not of one pool.
        PoolError: The pool cannot be read.
        StorageError: The scores cannot be read.
    """
    scores = {
        role: Scores.open(path) for role, path in paths.items() if path is not None
    }
    first, *others = scores.values()
    ids = first.ids()
    for other in others:
        _check_same(first, ids, other)
    with contextlib.ExitStack() as stack:
        pool = None
        if pool_name is not None:
            if config is None:
                msg = f"pool: {pool_name!r} is of a configuration; got none"
                raise ConfigError(msg)
            pool = stack.enter_context(open_configured_pool(config, pool_name))
            _check_pool(pool_name, pool, first, ids)
        yield Inputs(scores, ids, pool, scratch)


def _check_same(first: Scores, ids: Int64[np.ndarray, " N"], other: Scores) -> None:
    """Checks that two models have scored the same examples of the same pool."""
    paths = f"the scores {str(first.path)!r} and {str(other.path)!r}"
    pools = (first.pool_fingerprint, other.pool_fingerprint)
    if None not in pools and pools[0] != pools[1]:
        msg = (
            f"{paths} are of different pools, with fingerprints {pools[0]} and "
            f"{pools[1]}: score one pool with both models"
        )
        raise ConfigError(msg)
    if not np.array_equal(ids, other.ids()):
        msg = (
            f"{paths} are of different examples ({first.num_examples:,} and "
            f"{other.num_examples:,}): score the same ones with both models"
        )
        raise ConfigError(msg)


def _check_pool(
    name: str, pool: Pool, scores: Scores, ids: Int64[np.ndarray, " N"]
) -> None:
    expected = scores.pool_fingerprint
    if expected is not None and pool.fingerprint != expected:
        msg = (
            f"pool {name!r} is not the one that was scored: its fingerprint is "
            f"{pool.fingerprint}, that of the scores {str(scores.path)!r} {expected}. "
            "Name the pool that was scored, or score this one"
        )
        raise ConfigError(msg)
    if ids[0] < 0 or ids[-1] >= pool.num_examples:
        msg = (
            f"the scores {str(scores.path)!r} are of examples {ids[0]} to {ids[-1]}, "
            f"and pool {name!r} has {pool.num_examples}: they are of another pool"
        )
        raise ConfigError(msg)
