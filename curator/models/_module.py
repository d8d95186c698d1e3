"""A torch module that a factory of the configuration built, and the weights in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from torch import Tensor, nn

from curator.errors import ConfigError
from curator.models._factory import call_factory
from curator.models._header import check_fit
from curator.models._weights import plain_name

__all__ = ["HostedModule", "StagedWeights"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StagedWeights:
    """Weights that have been read completely, ready to be swapped in."""

    tensors: Mapping[str, Tensor]


class HostedModule:
    """A module in eval mode on its device, whose weights can be replaced.

    Attributes:
        module: The module itself.
        device: Where it is.
        dtype: Of its floating-point parameters.
    """

    def __init__(
        self,
        *,
        factory: str,
        args: Mapping[str, object],
        device: str,
        dtype: str,
        identity: Sequence[object],
    ) -> None:
        """Calls the factory and moves its module to the device.

        Args:
            factory: Import path of a function, ``"package.module:function"``.
            args: Its keyword arguments, of types that JSON has.
            device: A torch device.
            dtype: ``float32``, ``bfloat16`` or ``float16``.
            identity: What else the outputs depend on.

        Raises:
            ConfigError: The factory cannot be imported or called, or returned no
                module; or another argument is wrong.
        """
        if dtype not in _DTYPES:
            msg = f"dtype: expected one of {', '.join(_DTYPES)}; got {dtype!r}"
            raise ConfigError(msg)
        self.dtype = _DTYPES[dtype]
        self.device = _device(device)
        self._factory = factory
        self._identity = _identity([factory, dict(args), dtype, *identity])
        self.module = _build(factory, args).to(self.dtype).eval()
        self._tensors = _tensors(self.module, factory)
        # Before the move, so that nothing is copied back from the device to be hashed.
        self._fingerprint: str | None = self._fingerprint_of(self._tensors)
        _move(self.module, self.device, factory)
        self._tensors = _tensors(self.module, factory)

    def check(self, weights: Path) -> None:
        """Checks that a safetensors file fits the module; reads only its header.

        Raises:
            SnapshotError: It is corrupt, or tensors are missing, unknown, or of another
                shape or kind; the message names them.
            StorageError: It cannot be read.
        """
        expected = {
            name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in self._tensors.items()
        }
        check_fit(weights, expected, self._factory)

    def stage(self, weights: Path) -> StagedWeights:
        """Reads a file into memory, in the module's own dtypes.

        All that can fail (disk, memory, cast) happens here, on the CPU.

        Raises:
            SnapshotError: As for :meth:`check`.
            StorageError: As for :meth:`check`.
        """
        self.check(weights)
        tensors: dict[str, Tensor] = {}
        with cast("Any", safe_open(weights, framework="pt")) as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                plain = plain_name(name)
                tensor = cast("Tensor", file.get_tensor(name))
                tensors[plain] = tensor.to(self._tensors[plain].dtype)
        return StagedWeights(tensors)

    def swap(self, staged: StagedWeights) -> None:
        """Copies staged weights into the module, in place."""
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(staged.tensors[name])
        # Not hashed before somebody asks: of a snapshot nobody does, and hashing takes
        # longer than loading.
        self._fingerprint = None

    @property
    def fingerprint(self) -> str:
        """Digest of the identity and of the weights it holds now."""
        if self._fingerprint is None:
            self._fingerprint = self._fingerprint_of(self._tensors)
        return self._fingerprint

    def _fingerprint_of(self, tensors: Mapping[str, Tensor]) -> str:
        digest = hashlib.blake2b(self._identity, digest_size=16)
        for name in sorted(tensors):
            tensor = tensors[name].cpu().contiguous()
            header = [name, str(tensor.dtype), list(tensor.shape)]
            digest.update(json.dumps(header).encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _build(factory: str, args: Mapping[str, object]) -> nn.Module:
    """Returns the factory's module, leaving torch's global generators as they were."""
    has_cuda = torch.cuda.is_initialized()
    devices: Sequence[int] = range(torch.cuda.device_count()) if has_cuda else []
    with cast("Any", torch.random).fork_rng(devices):
        # A restart must give the same initial weights, also where the factory does not
        # seed. The default generator is the CPU's; a factory that draws elsewhere
        # seeds itself.
        torch.default_generator.manual_seed(0)
        module = call_factory(factory, args)
    if not isinstance(module, nn.Module):
        msg = (
            f"factory {factory!r} returned a {type(module).__name__}; expected a "
            "torch.nn.Module"
        )
        raise ConfigError(msg)
    return module.requires_grad_(False)


def _tensors(module: nn.Module, factory: str) -> dict[str, Tensor]:
    """Returns the module's parameters and buffers themselves, by their plain names."""
    tensors: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):  # the extra state of a module
            continue
        plain = plain_name(name)
        if plain in tensors:
            msg = f"factory {factory!r}: its module has two tensors called {plain!r}"
            raise ConfigError(msg)
        if value.is_meta:
            msg = f"factory {factory!r}: tensor {plain!r} of its module is on 'meta'"
            raise ConfigError(msg)
        if 0 in value.stride():
            # Values that share memory cannot be loaded: torch would stop half-way.
            msg = (
                f"factory {factory!r}: tensor {plain!r} of its module is an expanded "
                "view; register it as .contiguous()"
            )
            raise ConfigError(msg)
        tensors[plain] = value
    return tensors


def _device(name: str) -> torch.device:
    """Returns a device that is there."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch asserts that it has CUDA
        msg = f"device: expected one that torch has here, such as 'cpu'; got {name!r}"
        msg = f"{msg} ({error})"
        raise ConfigError(msg) from error


def _move(module: nn.Module, device: torch.device, factory: str) -> None:
    try:
        module.to(device)
    except RuntimeError as error:
        msg = f"factory {factory!r}: cannot move its module to {str(device)!r}: {error}"
        raise ConfigError(msg) from error


def _identity(parts: Sequence[object]) -> bytes:
    """Returns canonical bytes of all that the outputs depend on but the weights."""
    try:
        return json.dumps(parts, sort_keys=True).encode()
    except (TypeError, ValueError) as error:
        msg = f"args: only what JSON can hold (text, numbers, lists, tables): {error}"
        raise ConfigError(msg) from error
