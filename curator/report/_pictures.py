"""Values of a pool's columns as pictures: small PNG files."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

from curator.errors import MissingDependencyError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["as_channels_last", "is_encoded", "is_picture_shape", "to_png"]

_MAX_SIDE = 192  # pixels of what is shown; twice the size on the page
_MAX_PIXELS = 64_000_000  # of what is decoded
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
_LEAST_SIDE = 4


def is_encoded(value: bytes) -> bool:
    """Whether bytes begin as a PNG, JPEG, WebP, GIF or BMP file does."""
    return value.startswith(_MAGIC) or (value[:4] == b"RIFF" and value[8:12] == b"WEBP")


def is_picture_shape(shape: tuple[int, ...]) -> bool:
    """Whether an array of that shape can be a picture: grey, colour, or with alpha.

    ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, where C is 1, 3 or 4.
    """
    if len(shape) == 2:
        return min(shape) >= _LEAST_SIDE
    return len(shape) == 3 and _channel_axis(shape) is not None


def as_channels_last(pixels: np.ndarray) -> np.ndarray:
    """Returns a flat row, or an array of a picture's shape, as ``(H, W[, C])``.

    Raises:
        ValueError: It has another shape.
    """
    if pixels.ndim == 1:
        pixels = _unfolded(pixels)
    if not is_picture_shape(pixels.shape):
        msg = f"its shape is {pixels.shape}"
        raise ValueError(msg)
    if pixels.ndim == 3 and _channel_axis(pixels.shape) == 0:
        pixels = np.moveaxis(pixels, 0, -1)
    return pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def to_png(value: bytes | np.ndarray) -> bytes:
    """Returns a picture as PNG, no larger than is worth showing.

    Args:
        value: An encoded picture, or an array; of floats, those of 0 to 1 are shown as
            they are, and others from their least (black) to their greatest (white).

    Raises:
        ValueError: It is none; the message says why.
        MissingDependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        msg = (
            "pictures need Pillow, which is not installed: "
            "pip install 'batch-curator[report]'"
        )
        raise MissingDependencyError(msg) from error
    if isinstance(value, bytes):
        picture = _decoded(value)
    else:
        picture = Image.fromarray(_to_bytes(as_channels_last(value)))
    # Never enlarged: the page does that, and pixels stay pixels.
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _decoded(value: bytes) -> Image:
    from PIL import Image

    with warnings.catch_warnings():
        # Of files that are damaged, or that are made to fill the memory.
        warnings.simplefilter("error")
        try:
            picture = Image.open(io.BytesIO(value), formats=_FORMATS)
            if picture.width * picture.height > _MAX_PIXELS:
                msg = f"{picture.width} x {picture.height} pixels are too many"
                raise ValueError(msg)
            if picture.format == "JPEG":  # decodes at about the size that is wanted
                picture.draft("RGB", (_MAX_SIDE, _MAX_SIDE))
            return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        except ValueError:
            raise
        except Exception as error:
            msg = f"cannot be decoded: {error}"
            raise ValueError(msg) from error


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    wide = pixels.astype(np.float64)
    if not np.isfinite(wide).all():
        msg = "it has numbers that are not finite"
        raise ValueError(msg)
    low, high = float(wide.min()), float(wide.max())
    if low >= 0 and high <= 1:
        scaled = wide * 255
    elif low >= 0 and high <= 255 and high > 1 and np.array_equal(wide, wide.round()):
        scaled = wide
    else:
        scaled = (wide - low) * (255 / ((high - low) or 1.0))
    return np.ascontiguousarray(scaled.round().astype(np.uint8))


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    for axis, others in ((2, shape[:2]), (0, shape[1:])):
        if shape[axis] in (1, 3, 4) and min(others) >= _LEAST_SIDE:
            return axis
    return None


def _unfolded(row: np.ndarray) -> np.ndarray:
    """Returns a flat row as a square, grey or (channels first, as torch) in colour."""
    for channels in (1, 3):
        side = round((len(row) / channels) ** 0.5)
        if side * side * channels == len(row):
            return row.reshape((side, side) if channels == 1 else (3, side, side))
    msg = f"{len(row)} numbers make no square"
    raise ValueError(msg)
