"""The quickstart's data: a noisy pool, a small curated set and a held-out task.

Everything is made from ``examples/data/emoji_pairs.parquet`` in a few seconds and is a
function of the seed alone. Four vendors' emoji are trained on; the fifth, in a style
nobody trained on, is the test.

Shapes: ``N`` pairs, ``T`` tokens of a caption (padded with 0).
"""

import dataclasses
import re
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PARQUET = Path(__file__).parents[1] / "data" / "emoji_pairs.parquet"
HELD_OUT_VENDOR = "fluent"
POOL_SIZE = 40_000
CURATED_SIZE = 20_000
MISMATCHED_SHARE = 0.6  # of the pool's captions belong to another image
CURATED_SHARE = 0.25  # of the training images; a small set, but a clean one
VOCABULARY = 8192  # hash buckets; 0 is padding
NUM_TOKENS = 48
MAX_SHIFT = 2  # pixels, in each direction
DARKEST = 192  # of a background's channels: light, as pages are; the task is on white

_HELD_OUT, _POOL, _MISMATCH, _CURATED = range(4)  # streams of random numbers


@dataclasses.dataclass(frozen=True, slots=True)
class Emoji:
    """Base images and what is true about each of them.

    Attributes:
        vendors: Who drew it, N strings.
        concepts: The code points it shows; equal for the same emoji of two vendors.
        names: Its Unicode name.
        tags: Its keywords.
        images: RGBA with straight alpha, uint8 [N, 32, 32, 4].
    """

    vendors: np.ndarray
    concepts: np.ndarray
    names: list[str]
    tags: list[list[str]]
    images: np.ndarray

    def take(self, rows: np.ndarray) -> "Emoji":
        """Returns some of the rows, in the order asked for."""
        return Emoji(
            self.vendors[rows],
            self.concepts[rows],
            [self.names[row] for row in rows],
            [self.tags[row] for row in rows],
            self.images[rows],
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Pairs:
    """Image-caption pairs, ready for the model.

    Attributes:
        image: uint8 [N, 3, 32, 32].
        tokens: int32 [N, T].
        caption: N strings.
        mismatched: Whether the caption is another image's, bool [N]. For diagnostics:
            nothing that trains or selects may look at it.
    """

    image: np.ndarray
    tokens: np.ndarray
    caption: list[str]
    mismatched: np.ndarray


def load_emoji(path: Path = PARQUET) -> Emoji:
    """Returns the committed emoji, all five vendors."""
    table = pq.read_table(path)
    return Emoji(
        np.array(table["vendor"].to_pylist()),
        np.array(table["codepoint"].to_pylist()),
        table["name"].to_pylist(),
        table["tags"].to_pylist(),
        table["image"].combine_chunks().to_numpy_ndarray(),
    )


def training_emoji(emoji: Emoji) -> Emoji:
    """Returns the images of the vendors that may be trained on."""
    return emoji.take(np.flatnonzero(emoji.vendors != HELD_OUT_VENDOR))


def make_pool(emoji: Emoji, seed: int) -> Pairs:
    """Returns what is to be curated: many pairs, of which most are wrong.

    Args:
        emoji: All vendors; the held-out one is not used.
        seed: Of the variants and of which captions are wrong.
    """
    train = training_emoji(emoji)
    rows, pairs = _variants(train, POOL_SIZE, _generator(seed, _POOL))
    return _mismatch(pairs, train.concepts[rows], _generator(seed, _MISMATCH))


def make_curated(emoji: Emoji, seed: int) -> Pairs:
    """Returns what the reference model is trained on: few images, true captions.

    Augmented variants, because a reference that has seen few distinct pictures knows
    them by heart and cannot tell a wrong caption of any other.
    """
    train = training_emoji(emoji)
    rng = _generator(seed, _CURATED)
    num_images = round(len(train.names) * CURATED_SHARE)
    chosen = rng.choice(len(train.names), num_images, replace=False)
    return _variants(train.take(chosen), CURATED_SIZE, rng)[1]


def make_held_out(emoji: Emoji) -> Pairs:
    """Returns the task: match each image of the held-out vendor with its name."""
    test = emoji.take(np.flatnonzero(emoji.vendors == HELD_OUT_VENDOR))
    count = len(test.names)
    no_shift = np.zeros((count, 2), np.int64)
    white = np.full((count, 3), 255, np.uint8)
    return Pairs(
        _composite(test.images, np.arange(count), no_shift, white),
        tokenize(test.names),
        test.names,
        np.zeros(count, bool),
    )


def write_pool(pairs: Pairs, path: Path, rows_per_batch: int = 4_000) -> None:
    """Writes pairs as one Arrow IPC file; an example's id is its row's position.

    Uncompressed, so that a reader can map the file and touch only the rows it needs.
    """
    table = pa.table(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pairs.image),
            "tokens": pa.FixedShapeTensorArray.from_numpy_ndarray(pairs.tokens),
            "caption": pairs.caption,
            "mismatched": pairs.mismatched,
        }
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table, max_chunksize=rows_per_batch)


def tokenize(captions: Sequence[str]) -> np.ndarray:
    """Returns hashed word and character n-gram ids of captions, int32 [N, T].

    Words that look alike share n-grams, so a rare word is not a stranger.
    """
    tokens = np.zeros((len(captions), NUM_TOKENS), np.int32)
    for row, caption in enumerate(captions):
        words = [_word_ids(word) for word in re.findall(r"[^\W_]+", caption.lower())]
        # Whole words first: if a long caption is cut, n-grams go.
        ids = [word[0] for word in words]
        ids += [gram for word in words for gram in word[1:]]
        tokens[row, : len(ids)] = ids[:NUM_TOKENS]
    return tokens


@cache
def _word_ids(word: str) -> tuple[int, ...]:
    """Returns the bucket of the word, then those of its 3- and 4-grams."""
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)]
    # Not hash(): it differs between runs of Python.
    return tuple(
        1 + zlib.crc32(text.encode()) % (VOCABULARY - 1)
        for text in (f"{marked} ", *grams)
    )


def _generator(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose])


def _variants(
    emoji: Emoji, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, Pairs]:
    """Returns ``count`` true pairs and the emoji each was made from.

    Every image gets the same number of variants, give or take one; each variant has a
    shift, a background colour and one of the image's true captions.
    """
    rows = rng.permutation(np.arange(count) % len(emoji.names))
    shifts = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, (count, 2))
    backgrounds = rng.integers(DARKEST, 256, (count, 3), dtype=np.uint8)
    images = _composite(emoji.images, rows, shifts, backgrounds)
    captions = [_caption(emoji.names[row], emoji.tags[row], rng) for row in rows]
    pairs = Pairs(images, tokenize(captions), captions, np.zeros(count, bool))
    return rows, pairs


def _caption(name: str, tags: list[str], rng: np.random.Generator) -> str:
    """Returns one of an image's true captions."""
    if not tags:
        return name
    picked = [tags[i] for i in rng.permutation(len(tags))[:3]]
    forms: list[Callable[[], str]] = [
        lambda: name,
        lambda: f"{name}, {picked[0]}",
        lambda: f"{picked[0]} {name}",
        lambda: ", ".join(picked),
    ]
    return forms[rng.integers(len(forms))]()


def _composite(
    images: np.ndarray, rows: np.ndarray, shifts: np.ndarray, backgrounds: np.ndarray
) -> np.ndarray:
    """Returns images moved and put on a colour, uint8 [N, 3, 32, 32].

    Args:
        images: RGBA, uint8 [M, 32, 32, 4].
        rows: Which image each output shows, int64 [N].
        shifts: Down and right, in pixels, int64 [N, 2].
        backgrounds: RGB, uint8 [N, 3].
    """
    side = images.shape[1]
    margin = ((0, 0), (0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))
    padded = np.pad(images.transpose(0, 3, 1, 2), margin)
    out = np.empty((len(rows), 3, side, side), np.uint8)
    # One shift at a time: a slice of many images is far cheaper than many slices.
    for down, right in np.unique(shifts, axis=0):
        here = np.flatnonzero((shifts == (down, right)).all(axis=1))
        top, left = MAX_SHIFT - down, MAX_SHIFT - right
        window = padded[rows[here], :, top : top + side, left : left + side]
        alpha = window[:, 3:].astype(np.uint16)
        colour = backgrounds[here][:, :, None, None]
        out[here] = (window[:, :3] * alpha + colour * (255 - alpha) + 127) // 255
    return out


def _mismatch(pairs: Pairs, concepts: np.ndarray, rng: np.random.Generator) -> Pairs:
    """Returns the pairs with most captions replaced by another concept's caption.

    Args:
        pairs: True pairs.
        concepts: What each image shows, [N].
        rng: Chooses the victims and the donors.
    """
    count = len(pairs.caption)
    wrong = rng.permutation(count)[: round(count * MISMATCHED_SHARE)]
    source = np.arange(count)
    source[wrong] = rng.integers(0, count, len(wrong))
    # The same emoji of another vendor would be a true caption after all.
    while len(again := wrong[concepts[source[wrong]] == concepts[wrong]]):
        source[again] = rng.integers(0, count, len(again))
    mismatched = np.zeros(count, bool)
    mismatched[wrong] = True
    captions = [pairs.caption[row] for row in source]
    return Pairs(pairs.image, pairs.tokens[source], captions, mismatched)
