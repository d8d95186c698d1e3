"""What scoring a pool to files costs over a bare loop, and how much memory it takes.

    python -m benchmarks.scoring [--json FILE]

The bare loop reads the same blocks of the same Parquet pool and scores them with the
same model, in one thread, and drops the result. Both run in this process in turn, and
the ratio of their CPU seconds, and of their wall-clock, is taken pair by pair. Memory
is the peak of the process's anonymous memory (not of the pages of files), sampled after
every block, of one fresh process per size of the pool. At most 16 MiB of decoded
Parquet are kept, so that this cache is full in all of them.
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
NUM_EXAMPLES = 65_536
WIDTH = 64
# Hidden units of the classifier: about 0.2 and 2 million multiplications an example.
HIDDEN = (512, 2048)
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
    for hidden in HIDDEN:
        row, cpu, wall = measure_overhead(hidden)
        rows.append(row)
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
    title = (
        f"scoring a pool to files, {ROUNDS} pairs of runs, {threads} threads of torch"
    )
    report = Report(title=title, rows=rows, targets=targets)
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def measure_overhead(hidden: int) -> tuple[dict[str, object], float, float]:
    """Returns a row of the table, and the medians of the ratios of CPU and of time."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = configured(folder, NUM_EXAMPLES, hidden)
        ours: list[tuple[float, float]] = []
        bare: list[tuple[float, float]] = []
        for number in range(ROUNDS + 1):
            job = ScoreJob(
                pool="p", model="m", out=folder / f"out-{number}", outputs=("loss",)
            )
            pair = (
                seconds_of(lambda job=job: score(config, job)),
                seconds_of(lambda: bare_loop(config)),
            )
            if number:  # the first warms up
                ours.append(pair[0])
                bare.append(pair[1])
    pairs = list(zip(ours, bare, strict=True))
    cpu = statistics.median(a[0] / b[0] for a, b in pairs)
    wall = statistics.median(a[1] / b[1] for a, b in pairs)
    row: dict[str, object] = {
        "what": f"overhead, {hidden} units",
        "examples": NUM_EXAMPLES,
        "ours CPU s": statistics.median(a[0] for a in ours),
        "bare CPU s": statistics.median(b[0] for b in bare),
        "ours examples/s": round(NUM_EXAMPLES / statistics.median(a[1] for a in ours)),
        "CPU ratio": cpu,
        "time ratio": wall,
        "peak MB": None,
        "MB at first block": None,
    }
    return row, cpu, wall


def bare_loop(config: Config) -> None:
    """Scores the pool and keeps nothing."""
    spec = config.models["m"]
    pool = open_pool("parquet", config.pools["p"].path)
    scorer = build_scorer(spec)
    block = 4 * spec.micro_batch_size
    for start in range(0, pool.num_examples, block):
        ids = np.arange(start, min(start + block, pool.num_examples))
        scorer.score(pool.take(ids, scorer.columns), frozenset({"loss"}))
    pool.close()


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
        pools={"p": PoolSpec(format="parquet", path=str(path), cache_bytes=16 << 20)},
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
