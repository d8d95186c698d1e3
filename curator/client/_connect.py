"""The two ways to a service: over the network, or in this process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curator.client._service import Service
from curator.config import Config, load_config, parse_config

if TYPE_CHECKING:
    from curator.pools import Pool

__all__ = ["connect", "local"]


def connect(
    target: str, *, timeout: float = 10.0, retry_seconds: float = 30.0
) -> Service:
    """Returns the service of a server.

    Args:
        target: ``HOST:PORT`` or ``unix:PATH``, as ``curator serve`` prints it.
        timeout: How long to wait for the server to be there, in seconds.
        retry_seconds: How long calls and streams survive a server that has gone, as
            when it is restarted, before they raise ``UnavailableError``.

    Raises:
        UnavailableError: There is no server in time.
    """
    from curator.client._grpc import GrpcTransport

    return Service(GrpcTransport(target, timeout=timeout, retry_seconds=retry_seconds))


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
