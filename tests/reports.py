"""Pools and scores to report on, with everything that a page has to survive."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scorers import lists_of

NUM_EXAMPLES = 300
EVIL = '<script>alert("x")</script>'
DOMAINS = ("animals", "food & drink", EVIL)


def png(shade: int = 0, size: tuple[int, int] = (6, 5)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade % 256, 90, 200)).save(file, format="PNG")
    return file.getvalue()


def write_world(folder: Path, *, num_examples: int = NUM_EXAMPLES) -> Path:
    """Writes a pool of pictures and text with domains; returns the configuration."""
    rng = np.random.default_rng(1)
    rows = range(num_examples)
    table = pa.table(
        {
            "image": [png(i) for i in rows],
            "caption": [f"{EVIL} number {i}" for i in rows],
            "domain": [DOMAINS[i] for i in domain_of(num_examples)],
            "pixels": pa.FixedShapeTensorArray.from_numpy_ndarray(
                rng.integers(0, 255, (num_examples, 3, 8, 8)).astype(np.uint8)
            ),
            "tokens": lists_of(rng.integers(0, 90, (num_examples, 40))),
            "quality": rng.random(num_examples),
        }
    )
    pq.write_table(table, folder / "pool.parquet")
    path = folder / "server.toml"
    path.write_text(
        """
        [pools.p]
        format = "parquet"
        path = "pool.parquet"

        [pools.ids]
        format = "virtual"
        num_examples = 300
        """
    )
    return path


def domain_of(num_examples: int) -> np.ndarray:
    return np.random.default_rng(2).choice(3, num_examples, p=[0.6, 0.3, 0.1])


def score_columns(num_examples: int = NUM_EXAMPLES) -> dict[str, np.ndarray]:
    """Returns a loss of which some are not finite, and a score with a heavy tail."""
    rng = np.random.default_rng(3)
    loss = rng.gamma(2.0, 1.0, num_examples).astype(np.float32)
    loss[[4, 9]], loss[17] = np.nan, np.inf
    heavy = np.exp(rng.normal(0, 3, num_examples)).astype(np.float32)
    return {"loss": loss, "heavy": heavy}


def write_scores(
    path: Path, columns: Mapping[str, np.ndarray] | None = None, **more: np.ndarray
) -> Path:
    """Writes scores as another program would: one file, which has no manifest."""
    given = {**(score_columns() if columns is None else columns), **more}
    size = len(next(iter(given.values())))
    arrays = {
        name: lists_of(v) if v.ndim > 1 else pa.array(v) for name, v in given.items()
    }
    pq.write_table(pa.table({"example_id": np.arange(size), **arrays}), path)
    return path


def write_pair_scores(path: Path) -> Path:
    """Writes scores with embeddings: two groups of near-duplicates, of 4 and 3."""
    rng = np.random.default_rng(5)
    queries = rng.standard_normal((NUM_EXAMPLES, 16)).astype(np.float32)
    targets = (queries + rng.standard_normal((NUM_EXAMPLES, 16))).astype(np.float32)
    for first, count in ((20, 4), (100, 3)):
        queries[first : first + count] = queries[first]
        targets[first : first + count] = targets[first]
    scale = np.full(NUM_EXAMPLES, 10.0, np.float32)
    return write_scores(path, {}, queries=queries, targets=targets, logit_scale=scale)


class Page(HTMLParser):
    """What a browser would see of a page: tags, text, pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(
        self, tag: str, attrs: Sequence[tuple[str, str | None]]
    ) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset")]

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1] in ("h2", "h3"):
            self.headings.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass


def read_json(text: str) -> dict[str, object]:
    return json.loads(text)
