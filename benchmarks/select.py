"""What a selection costs: from a large scored pool, and of a subset by embeddings.

    python -m benchmarks.select [--quick] [--json FILE]

The scores are a folder as ``curator score`` writes it: a loss and an entropy of 10
million examples, in 611 files. Each row is one call of ``curator select`` as a user has
it, in a process of its own: imports, reading, the policy, the report and the file.
Memory is the peak of the process as the kernel counts it.

Then 1000 of 10,000 embeddings are chosen by k-center, facility location and log
determinant, and by what else does that: ``python -m benchmarks.select_subsets``, which
takes other numbers too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import select_subsets
from benchmarks.report import Report, Target
from curator.offline._manifest import Manifest, agree
from curator.offline._shards import Block, ShardWriter
from curator.policies import POLICIES

NUM_EXAMPLES = 10_000_000
QUICK_EXAMPLES = 100_000
NUM_EMBEDDINGS = 10_000
QUICK_EMBEDDINGS = 1_000
SHARD_SIZE = 16_384
MAX_SECONDS = 30.0
MAX_MB = 2000.0
# The options of each call. A policy that is not there is left out.
BY_POLICY = {
    "uniform": (),
    "topk": ("-o", "score=loss"),
    "softmax": ("-o", "score=loss"),
    "power": ("-o", "score=loss"),
    "softrank": ("-o", "score=loss"),
    "stratified": ("-o", "score=loss"),
    "ccs": (),
}


def main() -> None:
    """Measures every way to select, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write the result there, and that of subsets to FILE-subsets",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_EXAMPLES:,} examples, subsets of {QUICK_EMBEDDINGS:,}",
    )
    arguments = parser.parse_args()
    report = measure(QUICK_EXAMPLES if arguments.quick else NUM_EXAMPLES)
    report.print()
    num_embeddings = QUICK_EMBEDDINGS if arguments.quick else NUM_EMBEDDINGS
    subsets = select_subsets.measure(num_embeddings, 384, num_embeddings // 10, 0)
    subsets.print()
    if arguments.json:
        file = Path(arguments.json)
        report.write(file)
        subsets.write(file.with_stem(f"{file.stem}-subsets"))


def measure(num_examples: int) -> Report:
    """Returns time and memory of each way to select a tenth of so many examples."""
    rows: list[dict[str, object]] = []
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scores(folder / "scores", num_examples)
        for what, options in calls(num_examples).items():
            out = folder / f"{what}.parquet"
            call = ["select", str(folder / "scores"), *options, "--out", str(out)]
            seconds, cpu_seconds, peak_mb, report = run(call)
            rows.append(
                {
                    "select by": what,
                    "examples": num_examples,
                    "selected": report["num_selected"],
                    "s": seconds,
                    "CPU s": cpu_seconds,
                    "peak MB": round(peak_mb),
                    "MB written": round(out.stat().st_size / 1e6, 2),
                }
            )
            targets += [
                Target(
                    f"{what}, a tenth of {num_examples:,}",
                    seconds, "s", "< 30", seconds < MAX_SECONDS,
                ),
                Target(f"{what}, memory", peak_mb, "MB", "< 2000", peak_mb < MAX_MB),
            ]  # fmt: skip
    title = f"curator select, a tenth of {num_examples:,} scored examples"
    return Report(title=title, rows=rows, targets=targets)


def calls(num_examples: int) -> dict[str, list[str]]:
    """Returns the options of each call, by what it selects by."""
    num_selected = ["--num-selected", str(num_examples // 10)]
    found = {"threshold": ["--where", "loss >= 3.8897"]}
    found["quantile"] = ["--where", "loss >= percentile(loss, 90)"]
    for name, options in BY_POLICY.items():
        if name in POLICIES:
            found[name] = ["--policy", name, *options, *num_selected]
    return found


def run(call: list[str]) -> tuple[float, float, float, dict[str, object]]:
    """Returns seconds, CPU seconds, peak MB and the report of a call of the command."""
    command = [sys.executable, "-m", "curator.cli.__main__", *call, "--json"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return seconds, cpu_seconds, usage.ru_maxrss / 1e3, json.loads(text)


def write_scores(folder: Path, num_examples: int) -> None:
    """Writes a loss and an entropy of so many examples, as ``curator score`` does."""
    manifest = Manifest(
        pool_fingerprint="benchmark",
        model_fingerprint="benchmark",
        model={"kind": "classifier"},
        outputs=["entropy", "loss"],
        columns=[],
        where=None,
        pool_num_examples=num_examples,
        num_examples=num_examples,
        shard_size=SHARD_SIZE,
        versions={},
    )
    folder.mkdir()
    agree(folder, manifest)
    rng = np.random.default_rng(0)
    with ShardWriter(folder, manifest) as writer:
        for shard in range(manifest.num_shards):
            start, stop = manifest.span(shard)
            size = stop - start
            features = {
                "reference.entropy": rng.gamma(3.0, 0.5, size).astype(np.float32),
                "reference.loss": rng.gamma(2.0, 1.0, size).astype(np.float32),
            }
            writer.begin(shard, [Block(np.arange(start, stop), features)])
        writer.wait()


if __name__ == "__main__":
    main()
