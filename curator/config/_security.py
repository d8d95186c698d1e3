"""The ``[server.tls]`` and ``[server.tokens.NAME]`` tables: who may connect.

See ``docs/security.md``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import os
import re
from pathlib import Path
from typing import Literal, TypeAlias

from curator.errors import ConfigError

__all__ = [
    "Permission",
    "TlsSpec",
    "TokenSpec",
    "check_key_pair",
    "check_unix_path",
    "is_local",
]

Permission: TypeAlias = Literal["read", "report", "publish", "open", "administer"]
"""What a token may do: ``read`` sessions and their batches, ``report`` and select,
``publish`` snapshots, ``open`` sessions that a client specifies; ``administer`` is all
of it."""

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
# Shorter ones can be guessed from their digest.
MIN_TOKEN_LENGTH = 16
# Of sun_path in Linux's unix(7), without the zero byte at its end.
MAX_UNIX_PATH_BYTES = 107


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TlsSpec:
    """The ``[server.tls]`` table: PEM files, read again when they change.

    Attributes:
        cert: The server's certificate, then those between it and its CA.
        key: Its private key, not encrypted.
        client_ca: CAs of clients. With them every client needs a certificate that one
            of them signed (mutual TLS).
    """

    cert: str
    key: str
    client_ca: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TokenSpec:
    """A ``[server.tokens.NAME]`` table: either ``sha256`` or ``file``.

    Attributes:
        allow: What clients with this token may do.
        sha256: The token's SHA-256 in hexadecimal, so that the configuration holds no
            secret.
        file: A file that holds the token, such as a mounted secret.
    """

    allow: list[Permission]
    sha256: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if not self.allow:
            msg = "allow: at least one of read, report, publish, open, administer"
            raise ValueError(msg)
        if (self.sha256 is None) == (self.file is None):
            msg = "sha256: either this, the token's digest, or `file`, which holds it"
            raise ValueError(msg)
        if self.sha256 is not None and not _DIGEST.fullmatch(self.sha256):
            # Not repeated here: it may be the token itself, by mistake.
            msg = (
                "sha256: expected 64 hexadecimal digits, as `printf %s TOKEN | "
                f"sha256sum` prints them; got {len(self.sha256)} characters"
            )
            raise ValueError(msg)

    def digest(self) -> bytes:
        """Returns the token's SHA-256.

        Raises:
            ConfigError: The file cannot be read, or holds no token.
        """
        if self.file is None:
            return bytes.fromhex(str(self.sha256))
        try:
            token = Path(self.file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"cannot read a token from {self.file!r}: {error}"
            raise ConfigError(msg) from None
        if len(token) < MIN_TOKEN_LENGTH or not token.isprintable() or " " in token:
            msg = (
                f"{self.file!r} holds no token: at least {MIN_TOKEN_LENGTH} printable "
                "characters without spaces, such as `openssl rand -hex 32` makes"
            )
            raise ConfigError(msg)
        return hashlib.sha256(token.encode()).digest()


def is_local(address: str) -> bool:
    """Whether only this machine reaches an address, ``HOST:PORT`` or ``unix:PATH``.

    False where that is not certain, as for other schemes of gRPC.
    """
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0]
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_unix_path(address: str) -> None:
    """Checks that the path of ``unix:PATH`` fits the address of a socket.

    Raises:
        ValueError: It does not.
    """
    path = address.removeprefix("unix:")
    size = len(os.fsencode(path))
    if size > MAX_UNIX_PATH_BYTES:
        msg = (
            f"the path of a Unix socket has at most {MAX_UNIX_PATH_BYTES} bytes; got "
            f"{size}: {path!r}"
        )
        raise ValueError(msg)


def check_key_pair(cert: str | Path, key: str | Path) -> None:
    """Checks a certificate and its key, with which gRPC would fail later, or worse.

    Raises:
        OSError: One cannot be read.
        ValueError: They are none, or do not belong together.
    """
    import ssl  # which takes as long to import as all of this package

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # With a password, lest OpenSSL asks the terminal for one.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        msg = (
            f"{cert} and {key} are no certificate and its unencrypted key, in PEM "
            f"({error.reason or error})"
        )
        raise ValueError(msg) from None
