"""Weights as safetensors bytes and files, whichever wrapper they come out of.

Torch is not imported here; where a torch tensor arrives, it has been imported already.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from safetensors import SafetensorError

from curator.errors import SnapshotError, StorageError
from curator.files import sync

if TYPE_CHECKING:
    import torch

__all__ = ["plain_name", "weights_to_bytes", "write_weights"]

# Attributes in which wrappers keep the model: DistributedDataParallel, torch.compile,
# FullyShardedDataParallel and torch's activation checkpointing.
_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)


def plain_name(name: str) -> str:
    """Returns a tensor's name without the parts that wrappers put in, anywhere in it.

    A scorer compares names in this form on both sides, so a model that has an attribute
    called ``module`` of its own loses nothing.
    """
    *path, leaf = name.split(".")
    return ".".join([*(part for part in path if part not in _WRAPPERS), leaf])


def weights_to_bytes(model: object) -> bytes:
    """Returns the weights of a model as the bytes of a safetensors file.

    Tensors are copied from their device; tied ones are written once under each of their
    names; the names lose the prefixes of ``DistributedDataParallel``, ``torch.compile``
    and the like.

    Args:
        model: A ``torch.nn.Module``, a mapping of names to torch tensors, or a mapping
            of names to NumPy arrays (torch need not be installed for those).

    Raises:
        SnapshotError: It is something else, or a value is no plain dense tensor.
    """
    named = _named_values(model)
    torch = sys.modules.get("torch")
    try:
        if torch is not None and any(map(torch.is_tensor, named.values())):
            from safetensors.torch import save

            return save(_dense_tensors(named))
        from safetensors.numpy import save as save_numpy

        return save_numpy(_arrays(named))
    except (SafetensorError, KeyError) as error:  # a dtype the format does not have
        msg = f"the weights cannot be written as safetensors: {error}"
        raise SnapshotError(msg) from error


def write_weights(path: str | Path, model: object) -> None:
    """Writes the weights of a model to a safetensors file, whole or not at all.

    Args:
        path: The file; one that exists is replaced.
        model: As for :func:`weights_to_bytes`.

    Raises:
        SnapshotError: As for :func:`weights_to_bytes`.
        StorageError: The file cannot be written; the message says how many bytes were
            needed, and where.
    """
    path = Path(path)
    data = weights_to_bytes(model)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        raise _not_written(path, len(data), error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _named_values(model: object) -> dict[str, object]:
    """Returns the values of a module or a mapping by their plain names."""
    state_dict = getattr(model, "state_dict", None)
    values = state_dict() if callable(state_dict) else model
    if not isinstance(values, Mapping):
        msg = (
            f"cannot take weights from a {type(model).__name__}: give a "
            "torch.nn.Module, or a mapping of names to torch tensors or NumPy arrays"
        )
        raise SnapshotError(msg)
    named: dict[str, object] = {}
    for name, value in cast("Mapping[object, object]", values).items():
        plain = plain_name(str(name))
        if plain in named:
            msg = (
                f"two tensors are called {plain!r} once wrappers' prefixes are "
                f"removed; the second one is {name!r}"
            )
            raise SnapshotError(msg)
        named[plain] = value
    return named


def _dense_tensors(named: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """Returns contiguous tensors on the CPU, no two of which share memory."""
    torch = sys.modules["torch"]
    tensors: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, value in named.items():
        if not torch.is_tensor(value):
            raise _not_a_tensor(name, value, "torch tensors")
        tensor = cast("torch.Tensor", value).detach()
        problem = _why_not_dense(tensor)
        if problem:
            msg = f"weights {name!r}: {problem}"
            raise SnapshotError(msg)
        tensor = tensor.cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()  # the format has no two names for one memory
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    return tensors


def _why_not_dense(tensor: torch.Tensor) -> str | None:
    """Returns why a tensor's memory is not its values, None where it is."""
    if hasattr(tensor, "__tensor_flatten__"):
        # The memory of a wrapper is one rank's shard, or packed integers.
        kind = type(tensor).__name__
        return f"a {kind} is not a plain tensor: call full_tensor() or dequantize()"
    if tensor.is_meta:
        return "a meta tensor has no values: materialise it first"
    if tensor.is_quantized:
        return "a quantised tensor: call dequantize() first"
    if str(tensor.layout) != "torch.strided":
        return f"a sparse tensor ({tensor.layout}): call to_dense() first"
    return None


def _arrays(named: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Returns the arrays, contiguous and little-endian."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in named.items():
        if not isinstance(value, np.ndarray):
            raise _not_a_tensor(name, value, "torch tensors or NumPy arrays")
        array = cast("np.ndarray[Any, np.dtype[Any]]", value)
        if array.dtype.hasobject:
            msg = f"weights {name!r}: an array of Python objects holds no numbers"
            raise SnapshotError(msg)
        arrays[name] = np.require(array, array.dtype.newbyteorder("<"), "C")
    return arrays


def _not_a_tensor(name: str, value: object, expected: str) -> SnapshotError:
    msg = f"weights {name!r}: a {type(value).__name__}; all values must be {expected}"
    return SnapshotError(msg)


def _not_written(path: Path, num_bytes: int, error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(path.parent).free
        return StorageError(
            f"no space left to write {num_bytes} bytes of weights to {str(path)!r} "
            f"({free} bytes are free there): free some and repeat the call"
        )
    reason = error.strerror or error
    return StorageError(
        f"cannot write {num_bytes} bytes of weights to {str(path)!r}: {reason}"
    )
