"""How long a trainer waits for batches that are there, with and without the thread.

    python -m benchmarks.waiting [--json FILE]

A trainer that takes 6 ms with each batch, far longer than the server needs to send the
next one, so that what is left is what receiving costs it. By default a thread receives
ahead of such a trainer; to be compared, the trainer also does that itself, in turn.
"""

import argparse
import contextlib
import statistics
import time
import unittest.mock
from pathlib import Path

import curator
from benchmarks.delivery import BATCH_SIZE, elsewhere, served
from benchmarks.report import Report
from curator.client import _prefetch

STEP_SECONDS = 6e-3
NUM_STEPS = 150
ROUNDS = 3
# (bytes of an example, examples in the pool)
SIZES = ((2 << 10, 100_000), (8 << 10, 50_000))


def main() -> None:
    """Measures both sizes, both ways, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for example_bytes, num_examples in SIZES:
        with served(example_bytes, num_examples, NUM_STEPS) as session:
            start = session.state_dict()
            wait(session)  # defines the steps
            for way in ("Unix socket", "gRPC"):
                found: dict[bool, list[float]] = {True: [], False: []}
                for _ in range(ROUNDS):
                    for has_thread, waits in found.items():
                        session.load_state_dict(start)
                        with contextlib.ExitStack() as stack:
                            if way == "gRPC":
                                stack.enter_context(elsewhere())
                            if not has_thread:
                                stack.enter_context(without_thread())
                            waits.append(wait(session))
                ahead, itself = (statistics.median(found[key]) for key in (True, False))
                rows.append(
                    {
                        "batch KB": BATCH_SIZE * example_bytes >> 10,
                        "through": way,
                        "wait ms": round(ahead * 1e3, 3),
                        "without the thread": round(itself * 1e3, 3),
                        "ratio": round(itself / ahead, 1),
                    }
                )
    title = f"median wait for a batch that is there, median of {ROUNDS} runs"
    report = Report(title=title, rows=rows, targets=[])
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def wait(session: curator.Session) -> float:
    """Returns the median of what a trainer waits for a batch, in seconds."""
    waits: list[float] = []
    batches = session.batches()
    while True:
        started = time.perf_counter()
        if next(batches, None) is None:
            return statistics.median(waits)
        waits.append(time.perf_counter() - started)
        time.sleep(STEP_SECONDS)


def without_thread() -> contextlib.AbstractContextManager[object]:
    """Returns what has the trainer's own thread receive, as for a fast one."""
    patch = unittest.mock.patch.multiple
    return patch(_prefetch, BUSY_SECONDS=1e9, LARGE_BYTES=1 << 40)


if __name__ == "__main__":
    main()
