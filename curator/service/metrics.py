"""Metrics for Prometheus: what each open session has done and what it has cost.

They are read from the sessions' ledgers at each scrape, so a counter goes on where it
was after a restart of the service, and the training loop pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from curator.engine import Registry
from curator.errors import MissingDependencyError, ServiceError
from curator.sessions import SessionInfo

try:
    from prometheus_client import (
        CollectorRegistry,
        ProcessCollector,
        start_http_server,
    )
    from prometheus_client.core import CounterMetricFamily, Metric
except ImportError as error:
    msg = (
        "server.metrics needs the package prometheus_client, which is not installed: "
        "pip install 'batch-curator[metrics]', or leave server.metrics out"
    )
    raise MissingDependencyError(msg) from error

__all__ = ["MetricsServer"]

# Name without `_total`, what it says, and the entry of `SessionInfo.cost` that it sums.
_COSTS = (
    ("curator_candidates", "Candidates of the steps.", "num_candidates"),
    ("curator_scoring_seconds", "Time spent scoring candidates.", "scoring_seconds"),
    ("curator_selection_seconds", "Time spent in policies.", "selection_seconds"),
    (
        "curator_candidates_quarantined",
        "Candidates whose features were not finite.",
        "num_quarantined",
    ),
    (
        "curator_losses_quarantined",
        "Reported losses that were not finite.",
        "num_quarantined_losses",
    ),
    (
        "curator_steps_late",
        "Steps drawn uniformly because scoring took too long.",
        "num_late",
    ),
    ("curator_steps_skipped", "Steps that trainers passed over.", "num_skipped"),
    ("curator_scorers_lost", "Scorers that died or hung.", "num_lost_scorers"),
    ("curator_shards_retried", "Shards given to another one.", "num_retried_shards"),
    ("curator_shards_hedged", "Shards that two scorers did.", "num_hedged_shards"),
    ("curator_ray_restarts", "Calls made to another driver.", "num_ray_restarts"),
)
_MODELS = ("learner", "reference")


class MetricsServer:
    """An HTTP server of the metrics, from when it is made until it is closed.

    Attributes:
        address: ``HOST:PORT``, with the port that was bound.
    """

    def __init__(self, registry: Registry, address: str) -> None:
        """Starts to listen.

        Args:
            registry: The sessions.
            address: ``HOST:PORT``; port 0 picks a free one.

        Raises:
            ServiceError: The address cannot be listened on.
        """
        metrics = CollectorRegistry()
        metrics.register(_Sessions(registry))
        ProcessCollector(registry=metrics)
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]"), metrics
            )
        except OSError as error:
            msg = (
                f"cannot listen on {address} for metrics: the port is in use, or the "
                "address is not of this machine. Choose another server.metrics, or "
                "stop what listens there"
            )
            raise ServiceError(msg) from error
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stops to listen."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Sessions:
    """Reads the open sessions when Prometheus asks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Returns every metric, with a sample per session."""
        return _metrics(self._registry.open_sessions())


def _metrics(sessions: Sequence[SessionInfo]) -> Iterator[Metric]:
    defined = _counter("curator_steps_defined", "Steps in the ledger.")
    closed = _counter(
        "curator_steps_closed", "Steps that every rank has reported, or skipped."
    )
    for info in sessions:
        defined.add_metric([info.name], info.num_defined)
        closed.add_metric([info.name], info.next_step)
    yield defined
    yield closed
    for name, documentation, entry in _COSTS:
        counter = _counter(name, documentation)
        for info in sessions:
            counter.add_metric([info.name], info.cost.get(entry, 0.0))
        yield counter
    scored = _counter(
        "curator_examples_scored", "Forward passes, by model; one per example.", "model"
    )
    for info in sessions:
        for model in _MODELS:
            value = info.cost.get(f"num_{model}_scored", 0.0)
            scored.add_metric([info.name, model], value)
    yield scored


def _counter(name: str, documentation: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, documentation, labels=["session", *labels])
