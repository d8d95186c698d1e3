"""What is to be scored, and what is said of it while and after it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from curator.config import ModelSpec, did_you_mean
from curator.errors import ConfigError

__all__ = ["DEFAULT_SHARD_SIZE", "Progress", "ScoreEstimate", "ScoreJob", "ScoreReport"]

# What a crash costs, or twice that while a file is written; files of 64 KiB (losses) to
# 32 MiB (embeddings of 256 numbers a side).
DEFAULT_SHARD_SIZE = 16_384
# Far wider than all other outputs together, and of use to few.
_LARGE = frozenset({"projection"})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScoreJob:
    """A pool to score, by which model, and where to.

    Attributes:
        pool: Name of a pool of the configuration.
        model: Name of a model of the configuration, of any kind but ``table``.
        out: Folder of the scores; made where there is none.
        outputs: What is computed; by default all that the model gives but
            ``projection``.
        where: Only examples that this is true of, see :class:`curator.offline.Where`.
        limit: Only the first so many of them.
        columns: Columns of the pool that are copied beside the scores.
        shard_size: Examples per file.
    """

    pool: str
    model: str
    out: Path
    outputs: tuple[str, ...] | None = None
    where: str | None = None
    limit: int | None = None
    columns: tuple[str, ...] = ()
    shard_size: int = DEFAULT_SHARD_SIZE

    def __post_init__(self) -> None:
        for name in ("limit", "shard_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                msg = f"{name}: at least 1; got {value}"
                raise ConfigError(msg)

    def outputs_of(self, model: ModelSpec) -> list[str]:
        """Returns what is computed, sorted.

        Raises:
            ConfigError: The model does not give it, or nothing is asked for.
        """
        given = model.outputs or frozenset()
        if self.outputs is None:
            return sorted(given - _LARGE)
        for name in self.outputs:
            if name not in given:
                hint = did_you_mean(name, given)
                msg = f"outputs: model {self.model!r} gives no {name!r}{hint}"
                raise ConfigError(msg)
        if not self.outputs:
            msg = f"outputs: at least one of {', '.join(sorted(given))}"
            raise ConfigError(msg)
        return sorted(set(self.outputs))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a job is.

    Attributes:
        num_examples: How many there are to score.
        num_ready: How many of them were scored before.
        num_scored: How many have been scored since.
        seconds: Since it began.
    """

    num_examples: int
    num_ready: int
    num_scored: int
    seconds: float

    @property
    def rate(self) -> float:
        """Examples per second."""
        return self.num_scored / self.seconds if self.seconds > 0.0 else 0.0

    @property
    def seconds_left(self) -> float:
        """How long it will take, at the rate so far; infinite where there is none."""
        left = self.num_examples - self.num_ready - self.num_scored
        return left / self.rate if self.rate > 0.0 else float("inf")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScoreReport:
    """What a run did.

    Attributes:
        num_examples: How many there are to score.
        num_ready: How many of them were scored before.
        num_scored: How many this run scored, and wrote.
        num_shards: Files that there are when all is done.
        num_bytes: What this run wrote.
        outputs: What was computed.
        not_finite: How many of all examples that are scored now have a NaN or an
            infinity, by output.
        seconds: How long it took.
        device_seconds: How long the model was busy with it.
        is_finished: Whether every example is scored.
    """

    num_examples: int
    num_ready: int
    num_scored: int
    num_shards: int
    num_bytes: int
    outputs: list[str]
    not_finite: Mapping[str, int]
    seconds: float
    device_seconds: float
    is_finished: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ScoreEstimate:
    """What a whole run would cost, from a few examples of it.

    Attributes:
        num_examples: How many there are to score.
        num_shards: Files to write.
        num_bytes: What they take, before compression.
        outputs: What would be computed.
        num_tried: How many examples were scored for this.
        seconds: How long it would take.
        device_seconds: How long the model would be busy with it.
    """

    num_examples: int
    num_shards: int
    num_bytes: int
    outputs: list[str]
    num_tried: int
    seconds: float
    device_seconds: float
