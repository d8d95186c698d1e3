"""Policies: which examples of a super-batch are trained on; numpy only.

To add one: a file with a frozen dataclass that keeps the :class:`Policy` protocol, a
line in :data:`POLICIES`, a page in ``docs/policies``. The contract test picks it up.
"""

from __future__ import annotations

from typing import Any, TypeVar

from curator.components import register_component
from curator.policies._base import Policy, RememberingPolicy
from curator.policies._ccs import CCS, Chunks, StreamedSelection
from curator.policies._color import Color
from curator.policies._dedup import Dedup, Duplicates, KeepName, find_duplicates
from curator.policies._density import Density
from curator.policies._domain_quota import DomainQuota
from curator.policies._facility_location import FacilityLocation
from curator.policies._foreign import ForeignPolicy
from curator.policies._importance import Importance
from curator.policies._joint import Joint
from curator.policies._kcenter import KCenter
from curator.policies._logdet import LogDet
from curator.policies._power import Power
from curator.policies._selective_backprop import SelectiveBackprop
from curator.policies._sensitivity import Sensitivity
from curator.policies._softmax import Softmax
from curator.policies._softrank import SoftRank
from curator.policies._stratified import Stratified
from curator.policies._topk import TopK
from curator.policies._uds import UDS
from curator.policies._uniform import Uniform

__all__ = [
    "CCS",
    "POLICIES",
    "UDS",
    "Chunks",
    "Color",
    "Dedup",
    "Density",
    "DomainQuota",
    "Duplicates",
    "FacilityLocation",
    "ForeignPolicy",
    "Importance",
    "Joint",
    "KCenter",
    "KeepName",
    "LogDet",
    "Policy",
    "Power",
    "RememberingPolicy",
    "SelectiveBackprop",
    "Sensitivity",
    "SoftRank",
    "Softmax",
    "Stratified",
    "StreamedSelection",
    "TopK",
    "Uniform",
    "find_duplicates",
    "register_policy",
]

POLICIES: dict[str, type[Policy]] = {
    CCS.name: CCS,
    Color.name: Color,
    Dedup.name: Dedup,
    Density.name: Density,
    DomainQuota.name: DomainQuota,
    FacilityLocation.name: FacilityLocation,
    Importance.name: Importance,
    Joint.name: Joint,
    KCenter.name: KCenter,
    LogDet.name: LogDet,
    Power.name: Power,
    SelectiveBackprop.name: SelectiveBackprop,
    Sensitivity.name: Sensitivity,
    Softmax.name: Softmax,
    SoftRank.name: SoftRank,
    Stratified.name: Stratified,
    TopK.name: TopK,
    UDS.name: UDS,
    Uniform.name: Uniform,
}
"""Policies by the name they have in a configuration."""

_Class = TypeVar("_Class", bound=type[Any])


def register_policy(cls: _Class) -> _Class:
    """Makes a policy of one's own known by its ``name``; a class decorator.

    Raises:
        ConfigError: It is no frozen dataclass, lacks a method, or has no name, or that
            of another policy.
    """
    return register_component("policy", POLICIES, cls, ("needs", "select"))
