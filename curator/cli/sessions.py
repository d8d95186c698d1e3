"""``curator sessions``: where the sessions of a server are."""

from __future__ import annotations

from curator.client import connect

__all__ = ["sessions"]


def sessions(
    target: str,
    *,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
) -> int:
    """Prints a line of facts and a line of costs for each session.

    Args:
        target: ``HOST:PORT`` of a server; its token is in ``CURATOR_TOKEN``.
        ca: The CA of its certificate, a PEM file; without one there is no TLS.
        cert: A client's certificate, for a server that asks for one.
        key: Its private key.

    Returns:
        0.

    Raises:
        CuratorError: The server cannot be reached, or does not let us in.
    """
    tls = False if ca is None else ca
    with connect(target, tls=tls, cert=cert, key=key, retry_seconds=0.0) as service:
        names = service.names()
        if not names:
            print("no sessions")
        for name in names:
            info = service.describe(name)
            spec, cost = info.spec, info.cost
            length = "" if info.num_steps is None else f" of {info.num_steps}"
            print(
                f"{name}: step {info.next_step}{length}, {info.num_defined} defined; "
                f"{spec.batch_size} of {spec.super_batch_size} by {spec.policy!r}, "
                f"pool {spec.pool} ({info.num_examples:,} examples)"
            )
            print(
                f"  scoring {cost['scoring_seconds']:.1f} s, selection "
                f"{cost['selection_seconds']:.1f} s, forward passes: learner "
                f"{cost['num_learner_scored']:,.0f}, reference "
                f"{cost['num_reference_scored']:,.0f}; quarantined "
                f"{cost['num_quarantined']:,.0f}, late {cost['num_late']:,.0f}"
            )
    return 0
