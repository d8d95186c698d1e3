"""Policies: which examples of a super-batch are trained on; numpy only.

To add one: a file with a frozen dataclass that keeps the :class:`Policy` protocol, a
line in :data:`POLICIES`, a page in ``docs/policies``. The contract test picks it up.
"""

from __future__ import annotations

from curator.policies._base import Policy, RememberingPolicy
from curator.policies._domain_quota import DomainQuota
from curator.policies._importance import Importance
from curator.policies._joint import Joint
from curator.policies._power import Power
from curator.policies._selective_backprop import SelectiveBackprop
from curator.policies._softmax import Softmax
from curator.policies._softrank import SoftRank
from curator.policies._stratified import Stratified
from curator.policies._topk import TopK
from curator.policies._uds import UDS
from curator.policies._uniform import Uniform

__all__ = [
    "POLICIES",
    "UDS",
    "DomainQuota",
    "Importance",
    "Joint",
    "Policy",
    "Power",
    "RememberingPolicy",
    "SelectiveBackprop",
    "SoftRank",
    "Softmax",
    "Stratified",
    "TopK",
    "Uniform",
]

POLICIES: dict[str, type[Policy]] = {
    DomainQuota.name: DomainQuota,
    Importance.name: Importance,
    Joint.name: Joint,
    Power.name: Power,
    SelectiveBackprop.name: SelectiveBackprop,
    Softmax.name: Softmax,
    SoftRank.name: SoftRank,
    Stratified.name: Stratified,
    TopK.name: TopK,
    UDS.name: UDS,
    Uniform.name: Uniform,
}
"""Policies by the name they have in a configuration."""
