"""Samplers: which examples become candidates, and when."""

from curator.samplers._base import Sampler
from curator.samplers._permutation import Permutation
from curator.samplers._uniform import Uniform

__all__ = ["SAMPLERS", "Permutation", "Sampler", "Uniform"]

SAMPLERS: dict[str, type[Sampler]] = {"uniform": Uniform}
"""The samplers by the names they have in a configuration."""
