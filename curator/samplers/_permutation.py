"""An epoch's permutation of a pool, computable at any position.

Shape: ``n`` is the number of positions asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64, UInt64

from curator.rng import generator, key, mix

__all__ = ["Permutation"]

# A Feistel network over few values is a poor shuffle (its round functions have only so
# many different outputs), and a table of them is small.
_MAX_TABLE = 1 << 16
_MAX_EXAMPLES = 1 << 48
_NUM_ROUNDS = 8
# So that a block and its temporaries stay in the second-level cache.
_BLOCK = 1 << 13

_Network: TypeAlias = Callable[
    [np.ndarray, tuple[np.uint64, np.uint64], list[np.uint64]], np.ndarray
]


@dataclasses.dataclass(frozen=True, slots=True)
class Permutation:
    """A permutation of 0 to ``num_examples - 1``, a function of (seed, epoch).

    Up to 65,536 examples it is a table: the order of as many random keys. Above that it
    is a Feistel network with eight rounds, which takes the same time at any position
    and keeps nothing.

    The network runs over pairs (x, y) with x < a and y < b, where a and b are about the
    square root of N, and adds modulo a and b. Fewer than a of its a·b values are not
    below N; those are sent through it again until they are ("cycle-walking"). So it is
    exactly a permutation of N, and no N costs more than another. Source: Black and
    Rogaway, "Ciphers with arbitrary finite domains", 2002, sections 3 and 5.

    Attributes:
        num_examples: From 1 to 2^48.
        seed: Any integer.
        epoch: The pass over the pool.
    """

    num_examples: int
    seed: int
    epoch: int

    def __post_init__(self) -> None:
        if not 1 <= self.num_examples <= _MAX_EXAMPLES:
            msg = f"num_examples must be in [1, 2**48]; got {self.num_examples}"
            raise ValueError(msg)

    def at(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the ids at some positions of the epoch.

        Raises:
            ValueError: A position is not in [0, num_examples).
        """
        size = self.num_examples
        _check_range("positions", positions, size)
        if size <= _MAX_TABLE:
            return _table(size, self.seed, self.epoch)[positions]
        return self._walk(_permute, positions)

    def positions(self, ids: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Returns the positions at which some ids are; the inverse of :meth:`at`.

        Raises:
            ValueError: An id is not in [0, num_examples).
        """
        size = self.num_examples
        _check_range("ids", ids, size)
        if size <= _MAX_TABLE:
            return _inverse_table(size, self.seed, self.epoch)[ids]
        return self._walk(_unpermute, ids)

    def _walk(
        self, network: _Network, values: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Returns values through a network as often as it takes to be below N."""
        size, sides, keys = self.num_examples, self._sides(), self._keys()
        walked = np.empty(values.shape, np.int64)
        for start in range(0, len(values), _BLOCK):
            block = slice(start, start + _BLOCK)
            moved = network(values[block].astype(np.uint64), sides, keys)
            while len(outside := np.flatnonzero(moved >= np.uint64(size))):
                moved[outside] = network(moved[outside], sides, keys)
            walked[block] = moved
        return walked

    def _sides(self) -> tuple[np.uint64, np.uint64]:
        """Returns a and b, such that ``a * b >= N > a * b - a``."""
        a = math.isqrt(self.num_examples - 1) + 1
        return np.uint64(a), np.uint64(-(-self.num_examples // a))

    def _keys(self) -> list[np.uint64]:
        return [
            np.uint64(key(self.seed, "permutation", self.epoch, i))
            for i in range(_NUM_ROUNDS)
        ]


@functools.lru_cache(maxsize=16)
def _table(size: int, seed: int, epoch: int) -> Int64[np.ndarray, " {size}"]:
    """Returns a whole permutation: half a megabyte at most, hence so few are kept."""
    # Not Generator.permutation, whose result may change with the version of numpy; the
    # raw stream may not. Equal keys, once in 10^10 tables, stay in order.
    bits = generator(seed, "permutation", epoch=epoch).bit_generator
    table = np.argsort(bits.random_raw(size), kind="stable").astype(np.int64)
    table.flags.writeable = False
    return table


@functools.lru_cache(maxsize=16)
def _inverse_table(size: int, seed: int, epoch: int) -> Int64[np.ndarray, " {size}"]:
    """Returns where each id is in a whole permutation."""
    inverse = np.empty(size, np.int64)
    inverse[_table(size, seed, epoch)] = np.arange(size)
    inverse.flags.writeable = False
    return inverse


def _check_range(name: str, values: Int64[np.ndarray, " n"], size: int) -> None:
    if values.size and not (0 <= values.min() <= values.max() < size):
        msg = (
            f"{name} must be in [0, {size}); got some from {values.min()} "
            f"to {values.max()}"
        )
        raise ValueError(msg)


def _permute(
    values: UInt64[np.ndarray, " n"],
    sides: tuple[np.uint64, np.uint64],
    keys: list[np.uint64],
) -> UInt64[np.ndarray, " n"]:
    """Returns values below a·b through the network, once."""
    left, right = np.divmod(values, sides[1])
    spare = np.empty_like(left)
    for i, round_key in enumerate(keys):
        side = sides[i % 2]
        hashed = _hash(right + round_key, side)
        left += hashed
        # left - side where that is not negative: below zero it wraps to a huge number.
        np.subtract(left, side, out=spare)
        np.minimum(left, spare, out=left)
        left, right = right, left
    left *= sides[1]
    left += right
    return left


def _unpermute(
    values: UInt64[np.ndarray, " n"],
    sides: tuple[np.uint64, np.uint64],
    keys: list[np.uint64],
) -> UInt64[np.ndarray, " n"]:
    """Returns values below a·b back through the network, once."""
    left, right = np.divmod(values, sides[1])
    spare = np.empty_like(left)
    for i, round_key in reversed(list(enumerate(keys))):
        side = sides[i % 2]
        left, right = right, left
        left -= _hash(right + round_key, side)
        # left + side where left is below zero, a huge number that wraps back.
        np.add(left, side, out=spare)
        np.minimum(left, spare, out=left)
    left *= sides[1]
    left += right
    return left


def _hash(
    values: UInt64[np.ndarray, " n"], side: np.uint64
) -> UInt64[np.ndarray, " n"]:
    """Returns a hash of values in [0, side)."""
    # The top 40 bits of the hash scaled to [0, side): without division, and fair to
    # one in 2^16 for the largest side, 2^24.
    hashed = mix(values)
    hashed >>= np.uint64(24)
    hashed *= side
    hashed >>= np.uint64(40)
    return hashed
