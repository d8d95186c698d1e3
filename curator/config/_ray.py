"""The ``[ray]`` table: the cluster that scores, and how much of it."""

from __future__ import annotations

import dataclasses
import math

__all__ = ["RaySpec"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RaySpec:
    """The ``[ray]`` table; see ``docs/ray.md``.

    Attributes:
        address: ``HOST:PORT`` of a cluster's head, ``auto`` for the cluster of this
            machine (or of ``RAY_ADDRESS``), ``local`` for one that ends with the
            service.
        min_scorers: How many scorers each session keeps.
        max_scorers: How many it may grow to while shards wait.
        num_cpus: Cores that a scorer takes from its node.
        num_gpus: GPUs that it takes, or a part of one; models with ``device = "cuda"``
            need it.
        resources: Custom resources of a node that it takes, by name.
        shard_size: Candidates per shard; by default a micro-batch or more, such that
            every scorer has two.
        deadline_seconds: A scorer that has work and finishes none of it for so long is
            replaced; loading a snapshot counts as work.
        start_seconds: A step that waits for so long while there is no scorer at all
            fails, with the reason; a cluster that grows nodes on demand needs minutes.
        idle_seconds: A scorer above ``min_scorers`` ends after so long without work.
        joint_shards: Whether the pair terms of the policy ``joint`` stay on the
            scorers, for super-batches that are too large for one process.
    """

    address: str = "auto"
    min_scorers: int = 1
    max_scorers: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: dict[str, float] = dataclasses.field(default_factory=dict[str, float])
    shard_size: int | None = None
    deadline_seconds: float = 60.0
    start_seconds: float = 300.0
    idle_seconds: float = 60.0
    joint_shards: bool = False

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        is_head = bool(host) and "/" not in host and port.isdigit()
        if self.address not in ("auto", "local") and not is_head:
            msg = (
                "address: expected 'HOST:PORT' of a cluster's head, 'auto' or 'local'; "
                f"got {self.address!r}"
            )
            raise ValueError(msg)
        if self.max_scorers == 1 and self.min_scorers > 1:
            object.__setattr__(self, "max_scorers", self.min_scorers)
        for name, least in (
            ("min_scorers", 1),
            ("max_scorers", self.min_scorers),
            ("num_cpus", 0),
            ("num_gpus", 0),
            ("shard_size", 1),
        ):
            value = getattr(self, name)
            if value is not None and not (value >= least and math.isfinite(value)):
                why = " (min_scorers)" if name == "max_scorers" else ""
                msg = f"{name}: at least {least}{why}; got {value}"
                raise ValueError(msg)
        if self.num_gpus > 1 and not self.num_gpus.is_integer():
            msg = f"num_gpus: a whole number, or a part of one; got {self.num_gpus}"
            raise ValueError(msg)
        for name in ("deadline_seconds", "start_seconds", "idle_seconds"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                msg = f"{name}: above 0; got {value}"
                raise ValueError(msg)
        for name, amount in self.resources.items():
            if not (amount > 0 and math.isfinite(amount)):
                msg = f"resources.{name}: above 0; got {amount}"
                raise ValueError(msg)
