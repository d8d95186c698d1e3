"""The two ways to a service: over the network, or in this process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.client._arguments import check_target
from curator.client._service import Service
from curator.config import Config, load_config, parse_config

if TYPE_CHECKING:
    from curator.pools import Pool

__all__ = ["connect", "local"]


def connect(
    target: str,
    *,
    tls: bool | str | Path = False,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    token: str | None = None,
    timeout: float = 10.0,
    retry_seconds: float = 30.0,
) -> Service:
    """Returns the service of a server.

    Args:
        target: ``HOST:PORT`` or ``unix:PATH``, as ``curator serve`` prints it.
        tls: Whether the server's certificate is checked and the connection encrypted:
            with the CAs of a PEM file, or, if True, those that gRPC comes with.
        cert: This client's certificate, a PEM file, for servers that ask for one.
        key: Its private key.
        token: What says who this is; by default the environment variable
            ``CURATOR_TOKEN``.
        timeout: How long to wait for the server to be there, with its pools open, in
            seconds.
        retry_seconds: How long calls and streams survive a server that has gone, as
            when it is restarted, before they raise ``UnavailableError``.

    Raises:
        ConfigError: The address is none, a file cannot be read, or the token would be
            sent in the clear to another machine.
        UnavailableError: There is no server in time, or one of them distrusts the
            other's certificate.
    """
    # gRPC's own preparation for a fork, on by default, makes the forked workers of a
    # DataLoader crash, one start in four. They have no use for it: only this process
    # talks to the service. gRPC reads this when the first channel is made.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    from curator.client._credentials import Credentials
    from curator.client._grpc import GrpcTransport

    check_target(target)
    token = token or os.environ.get("CURATOR_TOKEN", "").strip() or None
    credentials = Credentials.of(target, tls=tls, cert=cert, key=key, token=token)
    return Service(
        GrpcTransport(
            target,
            credentials=credentials,
            timeout=timeout,
            retry_seconds=retry_seconds,
        )
    )


def local(
    config: Config | Mapping[str, Any] | str | Path,
    *,
    pools: Mapping[str, Pool] | None = None,
) -> Service:
    """Returns a service in this process: no server, no network, the same batches.

    Args:
        config: A configuration, the tables of one, or the path of one; its
            ``[server]`` table gives the state directory.
        pools: Pools that exist already, by the names that sessions use.

    Raises:
        ConfigError: The configuration is wrong.
        StorageError: Another process uses the state directory.
    """
    from curator.client._local import LocalTransport
    from curator.engine import Registry

    if isinstance(config, Mapping):
        config = parse_config(config)
    elif not isinstance(config, Config):
        config = load_config(config)
    return Service(LocalTransport(Registry(config, pools)))
