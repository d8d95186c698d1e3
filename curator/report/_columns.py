"""Which columns of a pool are pictures, text, numbers, and which one is the domain."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from curator.config import did_you_mean
from curator.errors import ConfigError
from curator.report._pictures import as_channels_last, is_encoded, is_picture_shape

if TYPE_CHECKING:
    import pyarrow as pa

    from curator.pools import Pool

__all__ = ["Choice", "Columns", "array_of", "choose_columns"]

_GROUPS = ("domain", "label", "class", "category", "source", "subset", "language")
_PIXELS = ("image", "img", "picture", "pixels", "x")
_MAX_PICTURES, _MAX_TEXTS, _MAX_FACTS = 2, 4, 6
_NUM_LOOKED_AT = 8  # examples that decide what a column is


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What the user said of columns; None where it is to be guessed.

    Attributes:
        group: The column by which examples are grouped: label, or domain.
        text: The only column shown as text.
        image: The only column shown as a picture.
    """

    group: str | None = None
    text: str | None = None
    image: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """How the columns of a pool are shown.

    Attributes:
        pictures: As pictures.
        texts: As text.
        numbers: Lists of numbers: the first of them.
        facts: One number or word each.
        group: By which examples are grouped, or None.
    """

    pictures: Sequence[str] = ()
    texts: Sequence[str] = ()
    numbers: Sequence[str] = ()
    facts: Sequence[str] = ()
    group: str | None = None

    @property
    def shown(self) -> list[str]:
        """All that are read to show an example."""
        names = [*self.pictures, *self.texts, *self.numbers, *self.facts]
        return names + [n for n in [self.group] if n is not None and n not in names]


def choose_columns(pool: Pool, choice: Choice, group: str | None = None) -> Columns:
    """Returns how the columns of a pool are shown.

    Args:
        pool: The pool; a few of its rows are looked at.
        choice: What the user said.
        group: The column that is grouped by unless the user said another one.

    Raises:
        ConfigError: A column that the user named is not in the pool, or cannot be shown
            as what he said.
    """
    schema = pool.schema
    for option, name in (
        ("--domain", choice.group),
        ("--text", choice.text),
        ("--image", choice.image),
    ):
        if name is not None and name not in schema.names:
            hint = did_you_mean(name, schema.names)
            msg = f"{option}: the pool has no column {name!r}{hint}"
            raise ConfigError(msg)
    if not schema.names:
        return Columns()
    rows = pool.take(np.arange(min(_NUM_LOOKED_AT, pool.num_examples)))
    kinds = {name: _kind(rows.column(name), name) for name in schema.names}
    if choice.group is not None and kinds[choice.group] not in ("text", "fact"):
        field = schema.field(choice.group)
        msg = (
            f"--domain: column {choice.group!r} is {field.type}; expected words or "
            "whole numbers"
        )
        raise ConfigError(msg)
    if choice.text is not None:
        _check_text(schema.field(choice.text), choice)
    if choice.image is not None and kinds[choice.image] != "picture":
        _check_picture(rows, choice.image)
    candidates = [group, *_GROUPS] if group in schema.names else list(_GROUPS)
    grouped = choice.group or next(
        (n for n in candidates if n is not None and _groups(schema, n)), None
    )
    named = {choice.text, choice.image, grouped}  # which are shown as that, and once
    by_kind = {
        kind: [n for n in schema.names if kinds[n] == kind and n not in named]
        for kind in ("picture", "text", "numbers", "fact")
    }
    texts = [choice.text] if choice.text else by_kind["text"][:_MAX_TEXTS]
    return Columns(
        pictures=[choice.image] if choice.image else by_kind["picture"][:_MAX_PICTURES],
        texts=[name for name in texts if kinds[name] == "text"],
        # Where there are words, token ids tell a reader nothing more.
        numbers=[name for name in texts if kinds[name] != "text"]
        or ([] if texts or by_kind["picture"] else by_kind["numbers"][:1]),
        facts=by_kind["fact"][:_MAX_FACTS],
        group=grouped,
    )


def array_of(column: Any, row: int) -> np.ndarray:
    """Returns a row of a column of numbers as an array.

    Raises:
        ValueError: It is null, no numbers, or its lists are not of one length.
    """
    import pyarrow as pa

    if isinstance(column, pa.FixedShapeTensorArray):
        return column.slice(row, 1).to_numpy_ndarray()[0]
    value = column[row].as_py()
    if value is None:
        msg = "there is none"
        raise ValueError(msg)
    try:
        values = np.asarray(value)
        # A null among numbers is not a number.
        return values.astype(np.float64) if values.dtype == np.object_ else values
    except TypeError as error:
        msg = "it holds no numbers"
        raise ValueError(msg) from error
    except ValueError as error:
        msg = "its lists are not of one length"
        raise ValueError(msg) from error


def _kind(column: pa.Array, name: str) -> str:
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return _array_kind(tuple(kind.shape), kind.value_type)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_text(kind):
        return "text"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return "picture" if _any_encoded(column) else "other"
    if pa.types.is_struct(kind):  # what Hugging Face's datasets make of a picture
        has_bytes = kind.get_field_index("bytes") >= 0
        inner = column.field("bytes") if has_bytes else None
        return "picture" if inner is not None and _any_encoded(inner) else "other"
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return "fact"
    if pa.types.is_floating(kind):
        return "fact"
    if _is_list(kind):
        return _list_kind(column, name)
    return "other"


def _list_kind(column: pa.Array, name: str) -> str:
    import pyarrow as pa

    depth, inner = 0, column.type
    while _is_list(inner):
        depth, inner = depth + 1, inner.value_type
    if not (pa.types.is_integer(inner) or pa.types.is_floating(inner)):
        return "other"
    rows = [row for row in range(len(column)) if column[row].is_valid]
    if not rows:
        return "other"
    try:
        shape = array_of(column, rows[0]).shape
    except ValueError:
        return "other"
    if depth > 1:
        return _array_kind(shape, inner)
    # A flat row of pixels looks like any other: its name and type have to say it.
    square = int(shape[0] ** 0.5) ** 2 == shape[0] >= 64
    square = square or int((shape[0] / 3) ** 0.5) ** 2 * 3 == shape[0] >= 192
    is_pixels = square and inner == pa.uint8() and name.lower() in _PIXELS
    return "picture" if is_pixels else "numbers"


def _array_kind(shape: tuple[int, ...], inner: pa.DataType) -> str:
    import pyarrow as pa

    # Of two axes of floats, nobody knows whether they are a picture's.
    is_colour = pa.types.is_floating(inner) and len(shape) == 3
    if (
        len(shape) > 1
        and is_picture_shape(shape)
        and (inner == pa.uint8() or is_colour)
    ):
        return "picture"
    return "numbers"


def _check_picture(rows: pa.RecordBatch, name: str) -> None:
    """Raises a ConfigError unless a column of numbers can be shown as a picture."""
    column = rows.column(name)
    try:
        if not (_holds_bytes(column.type) or _holds_numbers(column.type)):
            msg = "it holds something else"
            raise ValueError(msg)
        present = [row for row in range(len(column)) if column[row].is_valid]
        if not present:  # later ones may be pictures
            return
        if _holds_bytes(column.type):
            msg = "its bytes begin otherwise"
            raise ValueError(msg)
        as_channels_last(array_of(column, present[0]))
    except ValueError as error:
        msg = (
            f"--image: column {name!r} ({column.type}) is no picture: {error}. "
            "Expected encoded PNG, JPEG, WebP, GIF or BMP, or numbers of shape (H, W), "
            "(H, W, 3) or (3, H, W)"
        )
        raise ConfigError(msg) from error


def _check_text(field: pa.Field, choice: Choice) -> None:
    """Raises a ConfigError unless a column can be shown as text."""
    if field.name == choice.image:
        msg = (
            f"--text and --image: both are column {field.name!r}; expected two, or one "
            "of the options"
        )
        raise ConfigError(msg)
    if not (_is_text(field.type) or _holds_numbers(field.type)):
        msg = (
            f"--text: column {field.name!r} is {field.type}; expected text, numbers or "
            "lists of numbers"
        )
        raise ConfigError(msg)


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _holds_numbers(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if isinstance(kind, pa.FixedShapeTensorType):
        kind = kind.value_type
    while _is_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _any_encoded(column: Any) -> bool:
    values = (value.as_py() for value in column if value.is_valid)
    return any(is_encoded(value) for value in values)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    )


def _groups(schema: pa.Schema, name: str) -> bool:
    """Whether a column of that name is there, and of a type to group by."""
    import pyarrow as pa

    if name not in schema.names:
        return False
    kind = schema.field(name).type
    if _is_text(kind):
        return True
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind)
