"""The two pools of the demo: emoji with captions, and instructions with answers.

Both are made of real data, and then a known part is made wrong, which only the report
on what was done looks at: nothing that scores or selects reads those columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from examples.quickstart.data import load_emoji

__all__ = ["EMOJI_TOKENS", "PAIR_TOKENS", "write_emoji", "write_pairs"]

WRONG_SHARE = 0.2
EMOJI_TOKENS = 16
PAIR_TOKENS = 64
NUM_PAIRS = 600
SEED = 11


def write_emoji(path: Path, tokenizer: Any, num_concepts: int) -> int:
    """Writes pictures of five vendors with captions, a fifth of them another's.

    Args:
        path: The Parquet file.
        tokenizer: Of MiniLM.
        num_concepts: How many emoji; each is there once for each vendor that drew it.

    Returns:
        How many examples there are.
    """
    emoji = load_emoji()
    rng = np.random.default_rng(SEED)
    concepts = np.unique(emoji.concepts)
    concepts = rng.permutation(concepts)[:num_concepts]
    rows = np.flatnonzero(np.isin(emoji.concepts, concepts))
    emoji = emoji.take(rows)
    captions = [
        ", ".join([name, *tags[:2]])
        for name, tags in zip(emoji.names, emoji.tags, strict=True)
    ]
    wrong = _wrong_rows(len(rows), rng)
    donors = np.arange(len(rows))
    donors[wrong] = np.roll(wrong, 1)
    # The same emoji of another vendor would be a true caption after all.
    is_wrong = emoji.concepts[donors] != emoji.concepts
    shown = [captions[donor] for donor in donors]
    table = pa.table(
        {
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(emoji.images),
            "caption": shown,
            "name": emoji.names,
            "vendor": emoji.vendors.tolist(),
            "wrong_caption": is_wrong,
            "caption_tokens": _tokens(tokenizer, shown, EMOJI_TOKENS),
            "name_tokens": _tokens(tokenizer, emoji.names, EMOJI_TOKENS),
        }
    )
    pq.write_table(table, path)
    return len(table)


def write_pairs(path: Path, source: Path, tokenizer: Any) -> int:
    """Writes instructions with answers of nine domains, a fifth of them another's.

    Args:
        path: The Parquet file.
        source: What ``python -m benchmarks.quality.instructions`` has written.
        tokenizer: Of SmolLM2.

    Returns:
        How many examples there are.
    """
    found = pq.read_table(source, columns=["prompt", "response", "domain"])
    rng = np.random.default_rng(SEED)
    found = found.take(rng.permutation(len(found))[: 2 * NUM_PAIRS])
    prompts, responses = found["prompt"].to_pylist(), found["response"].to_pylist()
    wrong = _wrong_rows(len(found), rng)
    donors = np.arange(len(found))
    donors[wrong] = np.roll(wrong, 1)
    answers = [responses[donor] for donor in donors]
    asked = tokenizer([f"{prompt}\n" for prompt in prompts])["input_ids"]
    answered = tokenizer(answers)["input_ids"]
    lengths = [len(a) + len(b) + 1 for a, b in zip(asked, answered, strict=True)]
    kept = [row for row, size in enumerate(lengths) if size <= PAIR_TOKENS][:NUM_PAIRS]
    tokens = np.zeros((len(kept), PAIR_TOKENS), np.int32)
    mask = np.zeros((len(kept), PAIR_TOKENS), np.uint8)
    for line, row in enumerate(kept):
        tokens[line, : lengths[row]] = [
            *asked[row],
            *answered[row],
            tokenizer.eos_token_id,
        ]
        mask[line, len(asked[row]) : lengths[row]] = 1
    table = pa.table(
        {
            "prompt": [prompts[row] for row in kept],
            "response": [answers[row] for row in kept],
            "domain": found["domain"].take(kept).combine_chunks(),
            "wrong_response": donors[kept] != np.array(kept),
            "tokens": pa.FixedShapeTensorArray.from_numpy_ndarray(tokens),
            "mask": pa.FixedShapeTensorArray.from_numpy_ndarray(mask),
        }
    )
    pq.write_table(table, path)
    return len(table)


def _wrong_rows(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(count)[: round(WRONG_SHARE * count)]


def _tokens(tokenizer: Any, texts: list[str], length: int) -> pa.Array:
    """Returns token ids of one length; 0 is padding, which MiniLM's vocabulary has."""
    rows = tokenizer(texts, max_length=length, truncation=True, padding="max_length")
    ids = np.array(rows["input_ids"], np.int32)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(ids)
