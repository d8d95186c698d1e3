"""Whether the service at HOST:PORT serves.

::

    python healthcheck.py HOST:PORT [CA.pem [CERT.pem KEY.pem]]

With TLS, the CA of the server's certificate, which has to name HOST; where it asks
clients for theirs, a certificate and its key. No token is needed.

Exit status 0 where it does, 1 where it does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def open_channel(target: str, *files: str) -> grpc.Channel:
    """Returns a channel, encrypted where there are files for it."""
    if not files:
        return grpc.insecure_channel(target)
    ca, cert, key = (*(Path(file).read_bytes() for file in files), None, None)[:3]
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca, key, cert))


def main(target: str, *files: str) -> None:
    """Asks, by the standard protocol, and exits."""
    with open_channel(target, *files) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=5
            )
        except grpc.RpcError as error:
            sys.exit(f"{target}: {error.code().name}: {error.details()}")
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"{target}: not serving")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3, 5):
        sys.exit("healthcheck.py HOST:PORT [CA.pem [CERT.pem KEY.pem]]")
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"healthcheck.py: {error}")
