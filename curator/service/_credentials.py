"""TLS of a server, whose certificate may change while it runs."""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path
from typing import TypeAlias

import grpc

from curator.config import TlsSpec, check_key_pair
from curator.errors import ConfigError

__all__ = ["Certificates"]

_log = logging.getLogger(__name__)
# What changes when a file does, for each of the files.
_Version: TypeAlias = tuple[tuple[int, int, int], ...]


class Certificates:
    """A server's certificate and key, read again when their files have changed.

    gRPC asks before every handshake, so a new connection is the first to see a new
    certificate, and no timer runs. Files that do not fit together (a renewal that is
    half written, say) leave the old ones in place; the reason is logged once.
    """

    def __init__(self, spec: TlsSpec) -> None:
        """Reads the files.

        Raises:
            ConfigError: They cannot be read, or do not fit together.
        """
        self._spec = spec
        self._paths = [Path(spec.cert), Path(spec.key)]
        if spec.client_ca is not None:
            self._paths.append(Path(spec.client_ca))
        self._lock = threading.Lock()
        self._seen: _Version | None = None
        self._problem = ""
        try:
            self._initial = self._read()
        except (OSError, ValueError) as error:
            msg = f"server.tls: {error}"
            raise ConfigError(msg) from None

    def server_credentials(self) -> grpc.ServerCredentials:
        """Returns what a gRPC server takes."""
        return grpc.dynamic_ssl_server_credentials(
            self._initial,
            self._changed,  # pyright: ignore[reportArgumentType] - None is no change
            require_client_authentication=self._spec.client_ca is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what the files hold; None where nothing changed, or for the worse."""
        with self._lock:
            try:
                if self._version() == self._seen:
                    return None
                configuration = self._read()
            except (OSError, ValueError) as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.error("keeping the old certificate: %s", error)
                return None
            self._problem = ""
            _log.info("serving the new certificate of %s", self._spec.cert)
            return configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """Reads the files, and remembers which version of them that was.

        Raises:
            OSError: One cannot be read.
            ValueError: They do not fit together.
        """
        version = self._version()
        cert, key, *client_ca = (path.read_bytes() for path in self._paths)
        self._check()
        if self._version() != version:
            msg = "the files changed while they were read"
            raise ValueError(msg)
        self._seen = version
        return grpc.ssl_server_certificate_configuration(
            [(key, cert)], client_ca[0] if client_ca else None
        )

    def _check(self) -> None:
        """Raises ``ValueError`` where gRPC would fail to use the files, or worse."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert, key, *client_ca = map(str, self._paths)
        check_key_pair(cert, key)
        for path in client_ca:
            try:
                context.load_verify_locations(path)
            except ssl.SSLError as error:
                msg = f"{path} holds no certificates in PEM ({error.reason or error})"
                raise ValueError(msg) from None

    def _version(self) -> _Version:
        stats = [path.stat() for path in self._paths]
        return tuple((s.st_ino, s.st_size, s.st_mtime_ns) for s in stats)
