"""``curator sessions``: where the sessions of a server are."""

from __future__ import annotations

import argparse

from curator.cli.command import Command
from curator.client import connect

__all__ = ["COMMAND", "sessions"]


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


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="HOST:PORT", help="as serve prints it")
    parser.add_argument("--ca", metavar="CA.pem", help="of a server with TLS")
    parser.add_argument("--cert", metavar="CERT.pem", help="where it asks clients too")
    parser.add_argument("--key", metavar="KEY.pem", help="the certificate's key")


def _run(arguments: argparse.Namespace) -> int:
    return sessions(
        arguments.target, ca=arguments.ca, cert=arguments.cert, key=arguments.key
    )


COMMAND = Command(
    name="sessions",
    help="show the sessions of a server",
    description="Show where each session of a server is, and what it has cost.",
    example="curator sessions 127.0.0.1:50051; a token is taken from CURATOR_TOKEN",
    add_arguments=_add_arguments,
    run=_run,
)
