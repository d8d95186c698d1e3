"""A two-tower torch model as a scorer; with what it imports, the only users of torch.

Shapes: ``B`` rows to score, ``b`` rows of a micro-batch, ``D`` the embedding width.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import pyarrow as pa
import torch
from safetensors import safe_open
from torch import Tensor, nn

from curator.columns import column_to_torch
from curator.errors import ConfigError, ScoringError
from curator.models._factory import call_factory
from curator.models._header import check_fit
from curator.models._outputs import Outputs, checked_outputs
from curator.models._weights import plain_name
from curator.types import PairEmbeddings

__all__ = ["TwoTowerScorer"]

Column: TypeAlias = "Tensor | list[object]"

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_logger = logging.getLogger(__name__)


class TwoTowerScorer:
    """Scores rows of a pool with a torch module that embeds both sides of a pair.

    The module is built by a function of the server's own configuration and called as
    ``module(batch)``, in eval mode and without gradients. ``batch`` maps each column to
    a tensor ``[b, ...]`` on the device (numbers, fixed-size lists, fixed-shape tensors)
    or to a list of b Python values (strings, binary, all else). It returns a mapping
    with ``queries`` and ``targets`` ``[b, D]``, the scalar ``logit_scale`` and, for a
    model trained with a sigmoid loss, the scalar ``logit_bias``.

    Safe to use from several threads; they score one after the other.
    """

    def __init__(
        self,
        *,
        factory: str,
        args: Mapping[str, object],
        weights: Path | None,
        device: str,
        dtype: str,
        micro_batch_size: int,
        columns: Sequence[str],
    ) -> None:
        """Builds the model and loads its weights.

        Args:
            factory: Import path of a function, ``"package.module:function"``.
            args: Its keyword arguments, of types that JSON has.
            weights: A safetensors file; None for the module as the factory returns it.
            device: A torch device: ``cpu``, ``cuda:1`` ...
            dtype: ``float32``, ``bfloat16`` or ``float16``; parameters, floating-point
                columns and the forward pass are in it.
            micro_batch_size: Rows per forward pass.
            columns: What the module reads.

        Raises:
            ConfigError: The factory cannot be imported or called, or returned no
                module; or another argument is wrong.
            SnapshotError: The weights do not fit the module.
            StorageError: The weights cannot be read.
        """
        if dtype not in _DTYPES:
            msg = f"dtype: expected one of {', '.join(_DTYPES)}; got {dtype!r}"
            raise ConfigError(msg)
        if micro_batch_size < 1:
            msg = f"micro_batch_size: at least 1; got {micro_batch_size}"
            raise ConfigError(msg)
        if not columns:
            msg = "columns: at least one column of the pool for the model to read"
            raise ConfigError(msg)
        self._factory = factory
        self._columns = tuple(columns)
        self._dtype = _DTYPES[dtype]
        self._device = _device(device)
        self._micro_batch_size = micro_batch_size
        self._identity = _identity(factory, args, dtype, self._columns)
        self._lock = threading.Lock()
        self._module = _build(factory, args).to(self._dtype).eval()
        self._tensors = _tensors(self._module, factory)
        # Before the move, so that nothing is copied back from the device to be hashed.
        self._fingerprint = self._fingerprint_of(self._tensors)
        _move(self._module, self._device, factory)
        self._tensors = _tensors(self._module, factory)
        if weights is not None:
            self.load(weights)

    @property
    def fingerprint(self) -> str:
        """Digest of factory, arguments, dtype, columns and the weights it holds now."""
        return self._fingerprint

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the pool that the model reads."""
        return self._columns

    def score(self, rows: pa.RecordBatch) -> PairEmbeddings:
        """Returns the embeddings of ``rows``, L2-normalised in float32.

        A row whose embedding is zero or not finite comes back as NaN.

        When the device runs out of memory, the rows are scored again in micro-batches
        of half the size, which then stays: embeddings may differ from earlier ones in
        their last bits, so this is logged as a warning.

        Raises:
            ScoringError: A column is missing or has nulls, the model raised or returned
                something else than promised, or one row does not fit in memory.
            ValueError: There are no rows.
        """
        if rows.num_rows == 0:
            msg = "there are no rows to score"
            raise ValueError(msg)
        columns = {name: self._column(rows, name) for name in self._columns}
        with self._lock:
            while True:
                try:
                    return self._score(columns, rows.num_rows)
                except (RuntimeError, MemoryError) as error:
                    if not _is_out_of_memory(error):
                        raise self._failed(error) from error
                    self._halve(error)
                # Past the except block, whose traceback holds on to the tensors.
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()

    def check(self, weights: Path) -> None:
        """Checks that a safetensors file fits the model; reads only its header.

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

    def load(self, weights: Path) -> None:
        """Replaces the weights by those of a safetensors file, all or none.

        Waits for a call of :meth:`score` at hand. Floating-point tensors are cast to
        the scorer's dtype.

        Raises:
            SnapshotError: As for :meth:`check`.
            StorageError: As for :meth:`check`.
        """
        self.check(weights)
        # All that can fail (disk, memory, cast) comes first, on the CPU. What is left
        # is to copy between tensors of equal shape and dtype.
        staged: dict[str, Tensor] = {}
        with cast("Any", safe_open(weights, framework="pt")) as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                plain = plain_name(name)
                tensor = cast("Tensor", file.get_tensor(name))
                staged[plain] = tensor.to(self._tensors[plain].dtype)
        fingerprint = self._fingerprint_of(staged)
        with self._lock, torch.no_grad():
            for name, tensor in self._tensors.items():
                tensor.copy_(staged[name])
            self._fingerprint = fingerprint

    def _fingerprint_of(self, tensors: Mapping[str, Tensor]) -> str:
        digest = hashlib.blake2b(self._identity, digest_size=16)
        for name in sorted(tensors):
            tensor = tensors[name].cpu().contiguous()
            header = [name, str(tensor.dtype), list(tensor.shape)]
            digest.update(json.dumps(header).encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _column(self, rows: pa.RecordBatch, name: str) -> Column:
        """Returns a column as a tensor that shares its memory, or as a list."""
        try:
            column = rows.column(name)
        except KeyError:
            found = ", ".join(rows.schema.names)
            msg = f"model {self._factory!r} reads {name!r}; the rows have: {found}"
            raise ScoringError(msg) from None
        if column.null_count:
            msg = (
                f"model {self._factory!r} reads {name!r}, and {column.null_count} of "
                f"{len(column)} rows have a null there: fill or drop them in the pool"
            )
            raise ScoringError(msg)
        return column_to_torch(column, None)

    def _score(self, columns: Mapping[str, Column], num_rows: int) -> PairEmbeddings:
        """Scores all rows in micro-batches of the present size."""
        size = self._micro_batch_size
        parts: list[Outputs] = []
        for start in range(0, num_rows, size):
            stop = min(start + size, num_rows)
            batch = {
                name: self._micro_batch(column[start:stop], size)
                for name, column in columns.items()
            }
            outputs = checked_outputs(self._forward(batch), size, self._factory)
            if outputs.queries.shape[1] != (parts or [outputs])[0].queries.shape[1]:
                msg = (
                    f"model {self._factory!r} returned embeddings of width "
                    f"{outputs.queries.shape[1]} after {parts[0].queries.shape[1]}"
                )
                raise ScoringError(msg)
            parts.append(outputs)
        return PairEmbeddings(
            queries=torch.cat([part.queries for part in parts])[:num_rows]
            .cpu()
            .numpy(),
            targets=torch.cat([part.targets for part in parts])[:num_rows]
            .cpu()
            .numpy(),
            logit_scale=parts[-1].logit_scale,
            logit_bias=parts[-1].logit_bias,
        )

    def _micro_batch(self, values: Column, size: int) -> Column:
        """Returns values on the device, padded to ``size`` by repeating the last one.

        Always a copy: where the model writes into its input, it must not write into the
        pool's memory, and kernels choose their path by alignment, which the allocator
        makes the same every time.
        """
        if isinstance(values, list):
            return [*values, *[values[-1]] * (size - len(values))]
        dtype = self._dtype if values.is_floating_point() else values.dtype
        shape = (size, *values.shape[1:])
        padded = torch.empty(shape, dtype=dtype, device=self._device)
        padded[: len(values)].copy_(values)
        padded[len(values) :].copy_(values[-1:])
        return padded

    def _forward(self, batch: Mapping[str, Column]) -> object:
        # Autocast beside half weights, for models that make float32 of integer input.
        is_half = self._dtype != torch.float32
        try:
            with (
                torch.inference_mode(),
                torch.autocast(
                    self._device.type,
                    dtype=self._dtype if is_half else torch.bfloat16,
                    enabled=is_half,
                    cache_enabled=False,
                ),
            ):
                return self._module(batch)
        except Exception as error:
            if _is_out_of_memory(error):
                raise
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> ScoringError:
        return ScoringError(
            f"model {self._factory!r} raised {type(error).__name__}: {error}"
        )

    def _halve(self, error: BaseException) -> None:
        size = self._micro_batch_size
        if size == 1:
            msg = (
                f"model {self._factory!r} ran out of memory on {self._device} with one "
                f"row at a time: {error}"
            )
            raise ScoringError(msg) from error
        self._micro_batch_size = size // 2
        _logger.warning(
            "model %r ran out of memory on %s with micro_batch_size = %d; continuing "
            "with %d. Set that in the configuration: after a restart the larger size "
            "would be tried again, and embeddings may differ in their last bits.",
            self._factory,
            self._device,
            size,
            size // 2,
        )


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


def _identity(
    factory: str, args: Mapping[str, object], dtype: str, columns: Sequence[str]
) -> bytes:
    """Returns canonical bytes of all that the outputs depend on but the weights."""
    try:
        text = json.dumps([factory, dict(args), dtype, list(columns)], sort_keys=True)
    except (TypeError, ValueError) as error:
        msg = f"args: only what JSON can hold (text, numbers, lists, tables): {error}"
        raise ConfigError(msg) from error
    return text.encode()


def _is_out_of_memory(error: BaseException) -> bool:
    # Each device has a class of its own, or none; all of them say it in words.
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )
