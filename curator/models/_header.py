"""What a safetensors file holds, by its header, and whether that fits a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from safetensors import SafetensorError, safe_open

from curator.errors import SnapshotError, StorageError
from curator.models._weights import plain_name

__all__ = ["TensorHeader", "check_fit"]

TensorHeader: TypeAlias = tuple[str, tuple[int, ...]]
"""A dtype, in safetensors' spelling (``BF16``) or torch's (``bfloat16``); a shape."""

_MAX_NAMED = 5


def check_fit(path: Path, expected: Mapping[str, TensorHeader], model: str) -> None:
    """Checks that a safetensors file has the tensors of a model; reads its header only.

    A floating-point tensor may have another floating-point dtype, an integer one
    another integer dtype: they are cast when loaded.

    Args:
        path: The file.
        expected: The model's tensors, by plain name.
        model: What the message calls it.

    Raises:
        SnapshotError: The file is corrupt, or tensors are missing, unknown, or of
            another shape or kind; the message names the first few of each.
        StorageError: The file cannot be opened.
    """
    found = _read(path)
    different = [
        f"{name} is {_text(found[name])}, expected {_text(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if _form(found[name]) != _form(expected[name])
    ]
    missing = [
        f"{name} {_text(expected[name])}"
        for name in sorted(expected.keys() - found.keys())
    ]
    unknown = sorted(found.keys() - expected.keys())
    problems = [
        *_named("missing", missing),
        *_named("not in the model", unknown),
        *_named("of another shape or kind", different),
    ]
    if problems:
        msg = (
            f"weights {str(path)!r} do not fit the model of {model!r}: "
            f"{'; '.join(problems)}. They must come from the same architecture, built "
            "with the same arguments"
        )
        raise SnapshotError(msg)


def _read(path: Path) -> dict[str, TensorHeader]:
    found: dict[str, TensorHeader] = {}
    try:
        # safetensors has no types.
        with cast("Any", safe_open(path, framework="numpy")) as file:
            for name in cast("Iterable[str]", file.keys()):
                plain = plain_name(name)
                if plain in found:
                    msg = (
                        f"weights {str(path)!r}: two tensors are called {plain!r} once "
                        f"wrappers' prefixes are removed; the second one is {name!r}"
                    )
                    raise SnapshotError(msg)
                entry = file.get_slice(name)
                found[plain] = (entry.get_dtype(), tuple(entry.get_shape()))
    except SafetensorError as error:
        msg = f"weights {str(path)!r}: not a whole safetensors file: {error}"
        raise SnapshotError(msg) from error
    except OSError as error:
        msg = f"weights {str(path)!r} cannot be read: {error.strerror or error}"
        raise StorageError(msg) from error
    return found


def _named(problem: str, tensors: list[str]) -> list[str]:
    """Returns one clause that counts the tensors and names the first, or none."""
    if not tensors:
        return []
    more = ", ..." if len(tensors) > _MAX_NAMED else ""
    return [f"{len(tensors)} {problem} ({', '.join(tensors[:_MAX_NAMED])}{more})"]


def _form(header: TensorHeader) -> tuple[str, tuple[int, ...]]:
    """Returns what must be equal: the kind of number and the shape."""
    dtype, shape = header
    name = dtype.lower()
    if name.startswith(("f", "bf")):
        return "floating-point", shape
    if name.startswith(("c", "bool")):
        return name, shape
    return "integer", shape


def _text(header: TensorHeader) -> str:
    dtype, shape = header
    return f"{dtype} {list(shape)}"
