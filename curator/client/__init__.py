"""The trainer's side: connect, open a session, iterate batches, report."""

from curator.client._batch import Batch
from curator.client._connect import connect, local
from curator.client._service import Service
from curator.client._session import Session

__all__ = ["Batch", "Service", "Session", "connect", "local"]
