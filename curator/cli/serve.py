"""``curator serve``: a server in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

from curator.cli.command import Command
from curator.config import Config, load_config
from curator.errors import ConfigError, CuratorError

if TYPE_CHECKING:
    from curator.engine import Registry
    from curator.service.metrics import MetricsServer

__all__ = ["COMMAND", "serve"]

_log = logging.getLogger(__name__)

_STOPS = (signal.SIGTERM, signal.SIGINT)
# Who signals a process and its group, as timeout(1) does, sends one signal twice.
_SECOND_STOP_AFTER = 1.0
# Of glibc's malloc.h, and how many heaps its threads share at most.
_M_ARENA_MAX = -8
_MAX_ARENAS = 2


def serve(
    config_path: str, listen: str | None = None, *, insecure: bool = False
) -> int:
    """Serves a configuration until SIGTERM or SIGINT.

    Args:
        config_path: The TOML file.
        listen: Instead of the configuration's ``server.listen``.
        insecure: Whether other machines may reach it without TLS or tokens.

    Returns:
        0 after a clean shutdown. A signal that comes before anything is served ends
        the process, with 0, too; a second one with 128 and its number.

    Raises:
        CuratorError: The configuration is wrong, the port is in use, or the state
            directory is.
    """
    _limit_arenas()
    if sys.__stderr__ is not None:  # what a file that is cut short ends, says where
        faulthandler.enable(sys.__stderr__)
    # Imported here, so that `curator --help` needs no gRPC.
    from curator.engine import Registry
    from curator.service import Server

    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    stops = _Stops()
    config = load_config(config_path)
    if listen is not None:
        try:
            server = dataclasses.replace(config.server, listen=listen)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        config = dataclasses.replace(config, server=server)
    with contextlib.ExitStack() as cleanup:
        registry = cleanup.enter_context(contextlib.closing(Registry(config)))
        # It listens at once: an address in use is told before pools are read, and who
        # connects meanwhile is told what to wait for.
        server = Server(registry, insecure=insecure, ready=False)
        cleanup.callback(server.stop)
        metrics = None
        if config.server.metrics is not None:
            from curator.service.metrics import MetricsServer

            metrics = MetricsServer(registry, config.server.metrics)
            cleanup.callback(metrics.close)
        for name in config.pools:
            # Read whole now, if ever: what cannot be read is an error, and a signal
            # need not wait for it.
            _ = registry.pool(name).fingerprint
        for name in config.sessions:
            try:
                registry.check_recorded(name)
            except CuratorError as error:  # others can be served all the same
                _log.warning("session %r cannot be opened: %s", name, error)
        stops.is_serving = True
        server.serve()
        print(_banner(server.address, metrics, config, registry), flush=True)
        stops.wait()
        print("stopping: clients resume when the server is back", flush=True)
    print("stopped", flush=True)
    return 0


class _Stops:
    """What a signal to stop does: it ends a start at once, and a service in order.

    Opening a pool may take minutes, in which nothing is served and nothing is lost. A
    second one ends a service at once, too, as when a file system does not answer.

    Attributes:
        is_serving: Whether there is a service to end in order.
    """

    def __init__(self) -> None:
        """Catches the signals from now on.

        They are blocked, so that threads and processes that start now leave them to the
        thread that waits for them. BLAS has had threads since NumPy was imported: one
        of those may get a signal, too, so what is waited for is what Python writes of
        it.
        """
        self.is_serving = False
        self._stopped = threading.Event()
        caught, catcher = socket.socketpair()
        catcher.setblocking(False)
        signal.set_wakeup_fd(catcher.detach())
        for stop in _STOPS:
            signal.signal(stop, _go_on)  # not the default, which is to end at once
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        threading.Thread(target=self._watch, args=[caught], daemon=True).start()

    def wait(self) -> None:
        """Waits for one."""
        self._stopped.wait()

    def _watch(self, caught: socket.socket) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        caught.recv(1)
        if not self.is_serving:
            print("stopped before anything was served", file=sys.stderr, flush=True)
            os._exit(0)
        self._stopped.set()
        again = time.monotonic() + _SECOND_STOP_AFTER
        while (number := caught.recv(1)[0]) and time.monotonic() < again:
            pass
        print("ended at once; what was reported is kept", file=sys.stderr, flush=True)
        os._exit(128 + number)


def _go_on(*_: object) -> None:
    """Does nothing; that the signal came is in the socket."""


def _limit_arenas() -> None:
    """Has the threads of this process share few heaps, before there are any.

    Messages come and go on some eighty threads. With eight heaps for each core, as by
    default, every heap keeps the holes that its largest messages left, and memory
    grows for hours. Nothing happens without glibc, or where ``MALLOC_ARENA_MAX`` says
    how many there are to be.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _MAX_ARENAS)


def _banner(
    address: str, metrics: MetricsServer | None, config: Config, registry: Registry
) -> str:
    lines = [f"curator is listening on {address}", ""]
    for name, spec in config.pools.items():
        pool = registry.pool(name)
        columns = ", ".join(pool.schema.names) or "ids only"
        lines.append(
            f"  pool     {name}: {pool.num_examples:,} examples ({columns}), "
            f"{spec.format}, fingerprint {pool.fingerprint[:12]}"
        )
    for name, spec in config.models.items():
        what = (
            f"{spec.factory} on {spec.device}, {spec.dtype}"
            if spec.path is None
            else f"table {spec.path}"
        )
        lines.append(f"  model    {name}: {what}")
    for name in registry.names():
        spec = config.sessions.get(name)
        what = (
            "from an earlier configuration"
            if spec is None
            else f"{spec.batch_size} of {spec.super_batch_size} by {spec.policy!r}, "
            f"drawn by {spec.sampler!r}"
        )
        lines.append(f"  session  {name}: {what}")
    lines.append(f"  state    {config.server.state_dir}")
    tls, tokens = config.server.tls, ", ".join(config.server.tokens)
    lines.append(
        f"  access   {'no TLS' if tls is None else 'TLS'}"
        f"{', client certificates' if tls is not None and tls.client_ca else ''}, "
        f"{f'tokens of {tokens}' if tokens else 'no tokens'}"
    )
    if metrics is not None:
        lines.append(f"  metrics  http://{metrics.address}/metrics")
    arguments = [repr(address)]
    if tls is not None:
        arguments.append("tls='CA.pem'")
    if tls is not None and tls.client_ca is not None:
        arguments.append("cert='CLIENT.pem', key='CLIENT.key'")
    if tokens:
        arguments.append("token='TOKEN'")
    lines += [
        "",
        "connect with",
        f"  service = curator.connect({', '.join(arguments)})",
    ]
    opened = (
        f"{registry.names()[0]!r}" if registry.names() else "'NAME', SessionSpec(...)"
    )
    lines += [
        f"  session = service.open({opened})",
        "  for batch in session.batches(): ...",
    ]
    return "\n".join(lines)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.toml", help="see docs/sessions.md")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="instead of server.listen; port 0 picks a free one",
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="let other machines reach it without TLS or tokens; see docs/security.md",
    )


def _run(arguments: argparse.Namespace) -> int:
    return serve(arguments.config, arguments.listen, insecure=arguments.insecure)


COMMAND = Command(
    name="serve",
    help="serve the sessions of a configuration",
    description="Serve the sessions of a configuration until SIGTERM or Ctrl-C.",
    example="curator serve server.toml --listen 127.0.0.1:0",
    add_arguments=_add_arguments,
    run=_run,
)
