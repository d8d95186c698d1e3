"""Checks for extensions: whether a policy or sampler of your own keeps its contract."""

from curator.testing._policies import assert_policy_contract
from curator.testing._samplers import assert_sampler_contract

__all__ = ["assert_policy_contract", "assert_sampler_contract"]
