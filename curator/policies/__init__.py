"""Policies: which examples of a super-batch are trained on; numpy only.

To add one: a file with a frozen dataclass that keeps the :class:`Policy` protocol, a
line in :data:`POLICIES`, a page in ``docs/policies``. The contract test picks it up.
"""

from __future__ import annotations

from curator.policies._base import Policy
from curator.policies._joint import Joint
from curator.policies._topk import TopK
from curator.policies._uniform import Uniform

__all__ = ["POLICIES", "Joint", "Policy", "TopK", "Uniform"]

POLICIES: dict[str, type[Policy]] = {
    Joint.name: Joint,
    TopK.name: TopK,
    Uniform.name: Uniform,
}
"""Policies by the name they have in a configuration."""
