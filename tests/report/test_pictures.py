"""Values as pictures: which are, what they look like, and which are refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from reports import png

from curator.report._pictures import as_channels_last, is_encoded, to_png


def pixels_of(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_encoded_pictures_are_told_by_how_they_begin(format: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 30, 30)).save(file, format=format)

    assert is_encoded(file.getvalue())
    assert pixels_of(to_png(file.getvalue())).shape[:2] == (7, 9)


def test_words_are_no_picture() -> None:
    assert not is_encoded(b"BMX, or RIFF of another kind"[1:])
    assert not is_encoded(b"")


@pytest.mark.parametrize(
    "shape", [(6, 8), (6, 8, 1), (1, 6, 8), (6, 8, 3), (3, 6, 8), (4, 6, 8)]
)
def test_arrays_keep_their_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)

    found = pixels_of(to_png(pixels))

    np.testing.assert_array_equal(found, as_channels_last(pixels))
    assert found.shape[:2] == (6, 8)


def test_flat_rows_are_squares() -> None:
    assert as_channels_last(np.arange(64)).shape == (8, 8)
    colour = as_channels_last(np.arange(192))
    assert colour.shape == (8, 8, 3)
    assert colour[0, 1].tolist() == [1, 65, 129]  # channels first, as torch has them


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.eye(4), [255, 0]),
        (np.eye(4) * 2 - 1, [255, 0]),
        (np.eye(4) * 200, [200, 0]),
        (np.eye(4, dtype=np.int64), [255, 0]),
        (np.full((4, 4), 3.7), [0, 0]),
    ],
)
def test_other_numbers_are_scaled(pixels: np.ndarray, expected: list[int]) -> None:
    found = pixels_of(to_png(pixels))

    assert found[0, :2].tolist() == expected


def test_large_pictures_are_made_small_and_small_ones_not_large() -> None:
    assert pixels_of(to_png(png(size=(1000, 500)))).shape[:2] == (96, 192)
    assert pixels_of(to_png(png(size=(6, 5)))).shape[:2] == (5, 6)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((3, 3)), "its shape is"),
        (np.zeros((4, 5, 6, 3)), "its shape is"),
        (np.zeros(50), "50 numbers make no square"),
        (np.full((4, 4), np.nan), "not finite"),
        (png()[:40], "cannot be decoded"),
        (b"no picture", "cannot be decoded"),
        (png(size=(9000, 8000)), "pixels are too many"),
    ],
)
def test_what_is_no_picture_says_why(value: bytes | np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_png(value)
