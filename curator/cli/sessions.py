"""``curator sessions``: where the sessions of a server are."""

from __future__ import annotations

import argparse
import dataclasses

from curator.cli.command import Command, add_json, print_json
from curator.client import connect
from curator.config import session_to_table
from curator.sessions import SessionInfo

__all__ = ["COMMAND", "sessions"]

# What may have happened to scorers on Ray; shown if it did.
_TROUBLE = {
    "num_lost_scorers": "scorers lost",
    "num_retried_shards": "shards retried",
    "num_hedged_shards": "shards hedged",
    "num_ray_restarts": "restarts of Ray's driver",
}


def sessions(
    target: str,
    *,
    ca: str | None = None,
    cert: str | None = None,
    key: str | None = None,
    as_json: bool = False,
) -> int:
    """Prints a line of facts and a line of costs for each session.

    Args:
        target: ``HOST:PORT`` of a server; its token is in ``CURATOR_TOKEN``.
        ca: The CA of its certificate, a PEM file; without one there is no TLS.
        cert: A client's certificate, for a server that asks for one.
        key: Its private key.
        as_json: Print one JSON object instead, with all that is known of each.

    Returns:
        0.

    Raises:
        CuratorError: The server cannot be reached, or does not let us in.
    """
    tls = False if ca is None else ca
    with connect(target, tls=tls, cert=cert, key=key, retry_seconds=0.0) as service:
        found, names = service.open_sessions(), service.names()
    names = sorted(set(names) - {info.name for info in found})
    if as_json:
        print_json({"sessions": [_table(info) for info in found], "not_open": names})
        return 0
    if not found and not names:
        print("no sessions")
    for info in found:
        for line in _lines(info):
            print(line)
    for name in names:
        print(f"{name}: not open since the server started")
    return 0


def _table(info: SessionInfo) -> dict[str, object]:
    """Returns all that a session says of itself, of types that JSON has."""
    fields = {f.name: getattr(info, f.name) for f in dataclasses.fields(info)}
    return {**fields, "spec": session_to_table(info.spec), "cost": dict(info.cost)}


def _lines(info: SessionInfo) -> list[str]:
    spec, cost = info.spec, info.cost
    length = "" if info.num_steps is None else f" of {info.num_steps}"
    facts = (
        f"{info.name}: step {info.next_step}{length}, {info.num_defined} defined; "
        f"{spec.batch_size} of {spec.super_batch_size} by {spec.policy!r}, "
        f"drawn by {spec.sampler!r}, "
        f"pool {spec.pool} ({info.num_examples:,} examples)"
    )
    costs = (
        f"  scoring {cost['scoring_seconds']:.1f} s, selection "
        f"{cost['selection_seconds']:.1f} s, forward passes: learner "
        f"{cost['num_learner_scored']:,.0f}, reference "
        f"{cost['num_reference_scored']:,.0f}; quarantined "
        f"{cost['num_quarantined']:,.0f}, late {cost['num_late']:,.0f}"
    )
    trouble = ", ".join(
        f"{what} {cost[name]:,.0f}" for name, what in _TROUBLE.items() if cost[name]
    )
    return [facts, costs, *([f"  {trouble}"] if trouble else [])]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="HOST:PORT", help="as serve prints it")
    parser.add_argument("--ca", metavar="CA.pem", help="of a server with TLS")
    parser.add_argument("--cert", metavar="CERT.pem", help="where it asks clients too")
    parser.add_argument("--key", metavar="KEY.pem", help="the certificate's key")
    add_json(parser)


def _run(arguments: argparse.Namespace) -> int:
    return sessions(
        arguments.target,
        ca=arguments.ca,
        cert=arguments.cert,
        key=arguments.key,
        as_json=arguments.json,
    )


COMMAND = Command(
    name="sessions",
    help="show the sessions of a server",
    description="Show where each session of a server is, and what it has cost.",
    example="CURATOR_TOKEN=... curator sessions 127.0.0.1:50051 --ca ca.pem",
    add_arguments=_add_arguments,
    run=_run,
)
