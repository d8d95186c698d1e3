"""Scores two real pools, selects from them and shows what came of it.

    make scoring-demo

Everything that the demo does, it does with commands that anybody can type; they are
printed as they run. See README.md beside this file.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models come from packages only
os.environ.setdefault("TQDM_DISABLE", "1")  # no bars between the commands' own lines

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.quality import instructions
from examples.scoring_demo import models, pools

OUT = Path("out/scoring-demo")
NUM_CONCEPTS = 400  # about 1,700 pictures; all 8,222 take five times as long


def main() -> int:
    """Runs the demo; returns an exit status."""
    parser = argparse.ArgumentParser(prog="examples.scoring_demo", description=__doc__)
    parser.add_argument(
        "--only", choices=["emoji", "pairs"], help="one of the two halves"
    )
    only = parser.parse_args().only
    OUT.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("server.toml"), OUT / "server.toml")
    if only != "pairs":
        emoji()
    if only != "emoji":
        pairs()
    return 0


def emoji() -> None:
    """Pictures with captions: which captions fit, and which pictures are copies?"""
    say("emoji: pictures of five vendors, a fifth of them with another's caption")
    count = pools.write_emoji(
        OUT / "emoji.parquet", models.mini_lm_tokenizer(), NUM_CONCEPTS
    )
    print(f"{count:,} examples")
    where = f"--config {OUT}/server.toml --pool emoji"
    scores = f"{OUT}/emoji-scores"
    curator(f"score {OUT}/server.toml --pool emoji --model minilm --out {scores}")
    curator(
        f"report {scores} {where} --out {OUT}/emoji-report --domain vendor "
        "--cosine 0.99"
    )
    again("emoji-subset.parquet")
    curator(
        f"select {scores} --policy topk -o score=easy_reference -o loss=softmax "
        f"--fraction 0.5 {where} --compare vendor,wrong_caption "
        f"--out {OUT}/emoji-subset.parquet"
    )
    curator(
        f"report {OUT}/emoji-subset.parquet --scores {scores} {where} "
        f"--domain wrong_caption --out {OUT}/emoji-subset-report"
    )


def pairs() -> None:
    """Instructions with answers: which answers does a language model believe?"""
    say("pairs: instructions of nine domains, a fifth of them with another's answer")
    if instructions.main():
        sys.exit(1)
    count = pools.write_pairs(
        OUT / "pairs.parquet", instructions.PATH, models.smol_lm_tokenizer()
    )
    print(f"{count:,} examples")
    where = f"--config {OUT}/server.toml --pool pairs"
    scores = f"{OUT}/pairs-scores"
    curator(
        f"score {OUT}/server.toml --pool pairs --model smollm --out {scores} "
        "--outputs loss,entropy,num_tokens"
    )
    curator(f"report {scores} {where} --out {OUT}/pairs-report --domain domain")
    again("pairs-subset.parquet")
    curator(
        f"select {scores} --policy topk -o score=easy_reference --fraction 0.5 {where} "
        f"--compare domain,wrong_response --out {OUT}/pairs-subset.parquet"
    )
    curator(
        f"report {OUT}/pairs-subset.parquet --scores {scores} {where} "
        f"--domain domain --out {OUT}/pairs-subset-report"
    )


def again(name: str) -> None:
    """Removes what an earlier run of the demo selected: it is not written over."""
    (OUT / name).unlink(missing_ok=True)


def say(text: str) -> None:
    """Prints a heading."""
    print(f"\n== {text}", flush=True)


def curator(arguments: str) -> None:
    """Runs a command of the command line, and says what it was and how long it took."""
    print(f"\n$ curator {arguments}", flush=True)
    started = time.monotonic()
    command = [sys.executable, "-m", "curator.cli", *shlex.split(arguments)]
    if subprocess.run(command, check=False).returncode:
        sys.exit(1)
    print(f"[{time.monotonic() - started:.0f} s]", flush=True)


if __name__ == "__main__":
    sys.exit(main())
