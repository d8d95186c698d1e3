"""The gRPC server."""

from curator.service._server import Server

__all__ = ["Server"]
