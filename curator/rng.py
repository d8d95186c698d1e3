"""Addressed randomness: every draw is a function of where it is used.

Nothing here reads a global generator or carries one along. Two forms:

* :func:`generator` makes a numpy ``Generator`` from (seed, purpose, epoch, step);
* :class:`Noise` gives one value per example id, from (seed, purpose, step, chunk, id).
  The value belongs to the example and not to its position, so the order of candidates,
  the number of scorers they were sharded over, and a retry change nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Float64, Int64, UInt64

__all__ = ["Noise", "generator", "key", "mix"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def key(*address: int | str) -> int:
    """Returns a 64-bit key of an address; equal only for equal addresses.

    Args:
        address: Integers of any size and strings. ``(1, "1")`` and ``("1", 1)`` differ.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in address)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def generator(
    seed: int, purpose: str, *, epoch: int = 0, step: int = 0
) -> np.random.Generator:
    """Returns the numpy generator of an address.

    A Philox counter generator keyed by a hash of the whole address, so that nearby
    seeds and steps share nothing.
    """
    address = [key(seed, purpose, epoch, step, half) for half in (0, 1)]
    return np.random.Generator(np.random.Philox(key=np.array(address, np.uint64)))


def mix(values: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Returns ``values`` through the splitmix64 finaliser, a bijection on 64 bits.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    mixed = values ^ (values >> np.uint64(30))
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed


@dataclasses.dataclass(frozen=True, slots=True)
class Noise:
    """Randomness of one step of one session, addressed by chunk and example id."""

    seed: int
    step: int
    purpose: str = "policy"

    def uniform(
        self, ids: Int64[np.ndarray, " B"], *, chunk: int = 0
    ) -> Float64[np.ndarray, " B"]:
        """Returns one draw per id, uniform on the open interval (0, 1)."""
        address = np.uint64(key(self.seed, self.purpose, self.step, chunk))
        hashed = mix(mix(ids.astype(np.uint64) * _GOLDEN + address) + address)
        # 53 bits and a half: never 0 and never 1, so both logarithms are finite.
        return ((hashed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def gumbel(
        self, ids: Int64[np.ndarray, " B"], *, chunk: int = 0
    ) -> Float64[np.ndarray, " B"]:
        """Returns one standard Gumbel draw per id.

        The top m of ``logits + gumbel`` are m successive draws without replacement
        from ``softmax(logits)`` (Vieira 2014; Kool et al. 2019, arXiv 1903.06059).
        """
        return -np.log(-np.log(self.uniform(ids, chunk=chunk)))
