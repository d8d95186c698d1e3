"""Whether the service at HOST:PORT serves: ``python healthcheck.py HOST:PORT``.

Exit status 0 where it does, 1 where it does not.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(target: str) -> None:
    """Asks, by the standard protocol, and exits."""
    with grpc.insecure_channel(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=5
            )
        except grpc.RpcError as error:
            sys.exit(f"{target}: {error.code().name}")
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        sys.exit(f"{target}: not serving")


if __name__ == "__main__":
    main(sys.argv[1])
