"""The ``[server]`` table: where a server listens, what it keeps, what it allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from curator.config._security import TlsSpec, TokenSpec, check_unix_path

__all__ = ["ServerSpec"]

MIB = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServerSpec:
    """The ``[server]`` table.

    Attributes:
        listen: ``HOST:PORT`` or ``unix:PATH``; port 0 picks a free one.
        state_dir: Folder of ledgers, snapshots and caches; made where it is missing.
        python_path: Folders added to the import path, where model factories live.
        extensions: Modules that are imported first, which register policies and
            samplers of their own.
        max_message_bytes: Largest single message that is accepted. Everything large
            is streamed in chunks of 2 MiB at most, so this bounds reports and
            selections; the default leaves room for batches of a million examples.
        max_snapshot_bytes: Largest snapshot that is accepted.
        keep_steps: How many steps that are trained on stay in a ledger, at least;
            older ones cannot be asked for any more. By default all stay.
        max_sessions: How many sessions may be open.
        max_streams_per_client: How many streams of batches a client may have at once;
            a client is a token, or without tokens a machine.
        max_super_batch_size: Largest super-batch of a session that a client specifies.
        max_session_bytes: How much memory a session may hold at once: features of
            candidates, batches on their way, what its sampler knows of each example.
        stalled_rank_seconds: How long a rank waits for the reports of the others before
            it gets an error that names those that are missing.
        executor: Where models score: ``local``, in this process, or ``ray``, on the
            cluster of the ``[ray]`` table. The stream of batches is the same.
        metrics: ``HOST:PORT`` where Prometheus finds the service's metrics; nowhere by
            default.
        tls: Certificate and key; without them nothing is encrypted.
        tokens: Who may do what, by name; without them everybody may do everything.
    """

    listen: str = "127.0.0.1:50051"
    state_dir: str = "curator-state"
    python_path: list[str] = dataclasses.field(default_factory=list[str])
    extensions: list[str] = dataclasses.field(default_factory=list[str])
    max_message_bytes: int = 64 * MIB
    max_snapshot_bytes: int = 16 * 1024 * MIB
    keep_steps: int | None = None
    max_sessions: int = 256
    max_streams_per_client: int = 256
    max_super_batch_size: int = 1 << 20
    max_session_bytes: int = 16 * 1024 * MIB
    stalled_rank_seconds: float = 1800.0
    executor: Literal["local", "ray"] = "local"
    metrics: str | None = None
    tls: TlsSpec | None = None
    tokens: Mapping[str, TokenSpec] = dataclasses.field(
        default_factory=dict[str, TokenSpec]
    )

    def __post_init__(self) -> None:
        host, _, port = self.listen.rpartition(":")
        is_unix = self.listen.startswith("unix:") and self.listen != "unix:"
        is_address = bool(host) and (":" not in host or host.startswith("["))
        if not is_unix and not (is_address and port.isdigit() and int(port) < 65536):
            msg = (
                f"listen: expected 'HOST:PORT' or 'unix:PATH'; got {self.listen!r}, "
                "for example '127.0.0.1:50051' or '[::1]:50051'"
            )
            raise ValueError(msg)
        if is_unix:
            check_unix_path(self.listen)
        if not self.state_dir or "://" in self.state_dir:
            msg = (
                "state_dir: the path of a folder on this machine; got "
                f"{self.state_dir!r} (`curator checkpoint` copies it elsewhere)"
            )
            raise ValueError(msg)
        if self.metrics is not None:
            host, _, port = self.metrics.rpartition(":")
            if not (host and port.isdigit() and int(port) < 65536):
                msg = (
                    f"metrics: expected 'HOST:PORT'; got {self.metrics!r}, for example "
                    "'127.0.0.1:9464'"
                )
                raise ValueError(msg)
        if self.max_message_bytes < 4 * MIB:
            msg = (
                "max_message_bytes: at least 4 MiB, as what is large travels in chunks "
                f"of 2 MiB; got {self.max_message_bytes}"
            )
            raise ValueError(msg)
        if not 0 < self.stalled_rank_seconds < float("inf"):
            msg = (
                "stalled_rank_seconds: above 0, and finite; got "
                f"{self.stalled_rank_seconds:g}"
            )
            raise ValueError(msg)
        if self.keep_steps is not None and self.keep_steps < 1:
            msg = f"keep_steps: at least 1; got {self.keep_steps}"
            raise ValueError(msg)
        for name in (
            "max_snapshot_bytes",
            "max_sessions",
            "max_streams_per_client",
            "max_super_batch_size",
            "max_session_bytes",
        ):
            if getattr(self, name) < 1:
                msg = f"{name}: at least 1; got {getattr(self, name)}"
                raise ValueError(msg)
