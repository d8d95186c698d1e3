"""Online data curation for model training.

``import curator`` is free: what it offers is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curator import errors as errors
    from curator import policies as policies
    from curator import pools as pools
    from curator import testing as testing
    from curator import torch as torch
    from curator.client import Batch as Batch
    from curator.client import Service as Service
    from curator.client import Session as Session
    from curator.client import connect as connect
    from curator.client import local as local
    from curator.config import Config as Config
    from curator.config import ModelSpec as ModelSpec
    from curator.config import PoolSpec as PoolSpec
    from curator.config import RaySpec as RaySpec
    from curator.config import ServerSpec as ServerSpec
    from curator.config import SessionSpec as SessionSpec
    from curator.config import load_config as load_config
    from curator.errors import CuratorError as CuratorError
    from curator.types import PairEmbeddings as PairEmbeddings

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Config",
    "CuratorError",
    "ModelSpec",
    "PairEmbeddings",
    "PoolSpec",
    "RaySpec",
    "ServerSpec",
    "Service",
    "Session",
    "SessionSpec",
    "connect",
    "errors",
    "load_config",
    "local",
    "policies",
    "pools",
    "testing",
    "torch",
]

_HOME = {
    "Batch": "curator.client",
    "Config": "curator.config",
    "CuratorError": "curator.errors",
    "ModelSpec": "curator.config",
    "PairEmbeddings": "curator.types",
    "PoolSpec": "curator.config",
    "RaySpec": "curator.config",
    "ServerSpec": "curator.config",
    "Service": "curator.client",
    "Session": "curator.client",
    "SessionSpec": "curator.config",
    "connect": "curator.client",
    "load_config": "curator.config",
    "local": "curator.client",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in __all__:
        return importlib.import_module(f"curator.{name}")
    msg = f"module 'curator' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
