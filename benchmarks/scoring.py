"""What scoring a pool to files costs over a bare loop, and how much memory it takes.

    python -m benchmarks.scoring [--json FILE]

The bare loop reads the same blocks of the same Parquet pool with the same reader,
scores them with the same model in the same micro-batches, and drops the result. Beside
it stands a loop as it is written by hand, with pyarrow's reader, the module and torch's
cross-entropy, which checks nothing. All three run in one thread of this process, since
OpenMP has a team of threads for each thread that computes and lets none of them spin
when there are several. The order is turned round from round to round; the ratios of CPU
seconds and of wall-clock are taken within a round. Ours include what a run costs
whatever its size, which is measured over a pool of one block.

Memory is the peak of the process's anonymous memory (not of the pages of files),
sampled after every block, of one fresh process per size of the pool. At most 16 MiB of
decoded Parquet are kept, so that this cache is full in all of them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from benchmarks.report import Report, Target
from curator.config import Config, ModelSpec, PoolSpec, ServerSpec
from curator.models import build_scorer
from curator.offline import Progress, ScoreJob, score
from curator.pools import open_pool

ROUNDS = 7
WIDTH = 64
# Hidden units of the classifier (about 0.2 and 2 million multiplications an example),
# and how many examples take it seconds.
RUNS = ((512, 262_144), (2048, 65_536))
BLOCK = 1024  # examples that are read at once: four micro-batches
CACHE_BYTES = 16 << 20
POOLS = (100_000, 1_000_000, 10_000_000)


def build(*, hidden: int) -> nn.Module:
    """Returns a classifier of three layers, the factory of the models here."""
    torch.manual_seed(0)
    return Classifier(hidden)


class Classifier(nn.Module):
    """Makes logits of 16 classes of the column ``x``."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(WIDTH, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden // 2),
            nn.GELU(),
            nn.Linear(hidden // 2, 16),
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns logits."""
        return self.layers(batch["x"])


def main() -> None:
    """Measures both, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    parser.add_argument("--memory", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        print(json.dumps(peak_memory(Path(arguments.memory))))
        return
    rows: list[dict[str, object]] = []
    targets: list[Target] = []
    for hidden, num_examples in RUNS:
        found, cpu, wall = measure_overhead(hidden, num_examples)
        rows += found
        targets += [
            Target(
                f"CPU over a bare loop, {hidden} units", cpu, "", "<= 1.05", cpu <= 1.05
            ),
            Target(
                f"time over a bare loop, {hidden} units",
                wall,
                "",
                "<= 1.05",
                wall <= 1.05,
            ),
        ]
    peaks = [measure_memory(num_examples) for num_examples in POOLS]
    for num_examples, (peak, begun) in zip(POOLS, peaks, strict=True):
        rows.append(
            {
                **dict.fromkeys(rows[0]),
                "what": "memory",
                "examples": num_examples,
                "peak MB": round(peak / 1e6),
                "MB at first block": round(begun / 1e6),
            }
        )
    growth = (peaks[-1][0] - peaks[0][0]) / 1e6
    targets.append(
        Target(
            f"peak memory, {POOLS[-1]:,} examples over {POOLS[0]:,}",
            growth, "MB more", "<= 32", growth <= 32,
        )
    )  # fmt: skip
    threads = torch.get_num_threads()
    title = f"scoring a pool to files, {ROUNDS} rounds, {threads} threads of torch"
    report = Report(title=title, rows=rows, targets=targets)
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def measure_overhead(
    hidden: int, num_examples: int
) -> tuple[list[dict[str, object]], float, float]:
    """Returns rows of the table, and the medians of the ratios of CPU and of time."""
    ours, bare, by_hand = measure_runs(hidden, num_examples)
    start, bare_start, _ = measure_runs(hidden, BLOCK)
    once = statistics.median(
        a[0] - b[0] for a, b in zip(start, bare_start, strict=True)
    )
    rows: list[dict[str, object]] = []
    for what, others in (("bare", bare), ("hand-written", by_hand)):
        pairs = list(zip(ours, others, strict=True))
        cpu = [a[0] / b[0] for a, b in pairs]
        wall = [a[1] / b[1] for a, b in pairs]
        rows.append(
            {
                "what": f"over a {what} loop, {hidden} units",
                "examples": num_examples,
                "ours CPU s": statistics.median(a[0] for a in ours),
                "its CPU s": statistics.median(b[0] for b in others),
                "ours s": statistics.median(a[1] for a in ours),
                "its s": statistics.median(b[1] for b in others),
                "CPU ratio": statistics.median(cpu),
                "of rounds": f"{min(cpu):.3f} to {max(cpu):.3f}",
                "time ratio": statistics.median(wall),
                "of all rounds": f"{min(wall):.3f} to {max(wall):.3f}",
                "once, CPU s": once if what == "bare" else None,
                "peak MB": None,
                "MB at first block": None,
            }
        )
    return (
        rows,
        cast("float", rows[0]["CPU ratio"]),
        cast("float", rows[0]["time ratio"]),
    )


def measure_runs(hidden: int, num_examples: int) -> list[list[tuple[float, float]]]:
    """Returns CPU seconds and seconds of ours, the bare and the hand-written loop."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = configured(folder, num_examples, hidden)
        loops: list[Callable[[Path], object]] = [
            lambda out: score(
                config, ScoreJob(pool="p", model="m", out=out, outputs=("loss",))
            ),
            lambda _: bare_loop(config),
            lambda _: hand_written_loop(config, hidden),
        ]
        found: list[list[tuple[float, float]]] = [[] for _ in loops]
        for number in range(ROUNDS + 1):
            # Whoever comes first in a round comes last in the next.
            for i in range(len(loops))[:: 1 if number % 2 else -1]:
                out = folder / f"out-{number}"
                seconds = seconds_of(lambda i=i, out=out: loops[i](out))
                if number:  # the first warms up
                    found[i].append(seconds)
    return found


def bare_loop(config: Config) -> None:
    """Scores the pool and keeps nothing."""
    pool = open_pool("parquet", config.pools["p"].path, cache_bytes=CACHE_BYTES)
    scorer = build_scorer(config.models["m"])
    for start in range(0, pool.num_examples, BLOCK):
        ids = np.arange(start, min(start + BLOCK, pool.num_examples))
        scorer.score(pool.take(ids, scorer.columns), frozenset({"loss"}))
    pool.close()


def hand_written_loop(config: Config, hidden: int) -> None:
    """Computes the losses of the pool with torch and pyarrow alone."""
    spec = config.models["m"]
    model = build(hidden=hidden).eval()
    with torch.inference_mode(), pq.ParquetFile(config.pools["p"].path) as file:
        for rows in file.iter_batches(BLOCK, columns=["x", "label"]):
            x = torch.from_dlpack(rows.column("x").flatten()).reshape(-1, WIDTH)
            label = torch.from_dlpack(rows.column("label"))
            for start in range(0, len(x), spec.micro_batch_size):
                part = slice(start, start + spec.micro_batch_size)
                nn.functional.cross_entropy(
                    model({"x": x[part]}), label[part], reduction="none"
                ).numpy()


def measure_memory(num_examples: int) -> tuple[int, int]:
    """Returns peak bytes, and those at the first block, of a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        configured(Path(name), num_examples, 16)
        process = subprocess.run(
            [sys.executable, "-m", __spec__.name, "--memory", name],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    peak, begun = json.loads(process.stdout)
    return peak, begun


def peak_memory(folder: Path) -> tuple[int, int]:
    """Scores a pool in this process and returns its anonymous memory."""
    config = configured(folder, None, 16)
    samples: list[int] = []

    def sample(_: Progress) -> None:
        samples.append(anonymous_bytes())

    score(
        config,
        ScoreJob(pool="p", model="m", out=folder / "out", outputs=("loss",)),
        on_progress=sample,
    )
    return max(samples), samples[0]


def anonymous_bytes() -> int:
    """Returns this process's resident memory that is not of files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    message = "needs /proc/self/status, of Linux"
    raise SystemExit(message)


def configured(folder: Path, num_examples: int | None, hidden: int) -> Config:
    """Returns a configuration; writes its pool where ``num_examples`` says how many."""
    path = folder / "pool.parquet"
    if num_examples is not None:
        write_pool(path, num_examples)
    return Config(
        server=ServerSpec(state_dir=str(folder / "state")),
        pools={
            "p": PoolSpec(format="parquet", path=str(path), cache_bytes=CACHE_BYTES)
        },
        models={
            "m": ModelSpec(
                kind="classifier",
                factory="benchmarks.scoring:build",
                args={"hidden": hidden},
                columns=["x"],
                label="label",
            )
        },
    )


def write_pool(path: Path, num_examples: int) -> None:
    """Writes rows of random numbers, in groups of 16384."""
    rng = np.random.default_rng(0)
    schema = pa.schema({"x": pa.list_(pa.float32(), WIDTH), "label": pa.int64()})
    with pq.ParquetWriter(path, schema, compression="none") as writer:
        for start in range(0, num_examples, 16_384):
            size = min(16_384, num_examples - start)
            x = rng.standard_normal((size, WIDTH), np.float32).reshape(-1)
            columns = [
                pa.FixedSizeListArray.from_arrays(pa.array(x), WIDTH),
                pa.array(rng.integers(0, 16, size)),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def seconds_of(action: Callable[[], object]) -> tuple[float, float]:
    """Returns the CPU seconds and the seconds that an action takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
