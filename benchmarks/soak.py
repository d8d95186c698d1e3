"""Many clients on one server for a while: nothing lost, nothing twice, nothing kept.

    python -m benchmarks.soak [--minutes M] [--seed S] [--json FILE]

A server process with 8 sessions of 8 ranks each; the 64 clients are threads of a few
processes. Each trains as fast as it can: it takes a batch, and reports it, with losses
in every other session. At random moments it closes its session, or its connection, and
goes on from its own state. What the server holds is read all along: its resident
memory, file descriptors and threads. In the end, what every rank received is compared
with the ledger: each step once, and the slices of a step are its global batch. Linux
only.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import statistics
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import curator
from benchmarks.fuzz_world import to_toml, write_pool
from benchmarks.report import Report, Target
from benchmarks.server_process import Held, ServerProcess
from curator.ledger import Ledger

NUM_SESSIONS, WORLD_SIZE, BATCH_SIZE = 8, 8, 32
NUM_PROCESSES = 4
# A client breaks off after this many steps on average; every third time, it closes its
# connection as well.
STEPS_TO_BREAK = 200
SECONDS_BETWEEN_READINGS = 10.0
SECONDS_TO_STOP = 5.0


@dataclasses.dataclass(frozen=True)
class Received:
    """What one rank received.

    Attributes:
        session: Its session.
        rank: The rank.
        steps: The steps, as they came, int64 [n].
        digests: A digest of each step's ids, uint32 [n].
        num_breaks: How often it broke off.
        error: What ended it, if it was not the time.
    """

    session: str
    rank: int
    steps: np.ndarray
    digests: np.ndarray
    num_breaks: int
    error: str


def main() -> None:
    """Runs the clients, and prints what became of it."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, metavar="M")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        received, held = run(folder, 60 * arguments.minutes, arguments.seed)
        rows, targets = compare(folder, received)
    targets += growth(held)
    title = (
        f"{len(received)} clients on {NUM_SESSIONS} sessions, {arguments.minutes} min"
    )
    report = Report(title=title, rows=rows, targets=targets)
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def sessions() -> dict[str, dict[str, Any]]:
    """Returns the sessions' tables: uniform ones, and ones planned from losses."""
    plain = {"pool": "pairs", "batch_size": BATCH_SIZE}
    planned: dict[str, Any] = {
        **plain,
        "sampler": {"name": "infobatch", "percentiles": []},
    }
    return {
        f"soak-{i}": {**(planned if i % 4 == 3 else plain), "seed": i}
        | ({"num_epochs": 100_000} if i % 4 == 3 else {})
        for i in range(NUM_SESSIONS)
    }


def run(folder: Path, seconds: float, seed: int) -> tuple[list[Received], list[Held]]:
    """Returns what every rank received, and what the server held all along."""
    write_pool(folder / "pairs.arrow")
    config = folder / "server.toml"
    table = {
        "server": {"listen": "127.0.0.1:0", "state_dir": str(folder / "state")},
        "pools": {"pairs": {"format": "arrow", "path": str(folder / "pairs.arrow")}},
        "sessions": sessions(),
    }
    config.write_text(to_toml(table))
    ranks = [(name, rank) for name in sessions() for rank in range(WORLD_SIZE)]
    context = multiprocessing.get_context("spawn")
    held: list[Held] = []
    with (
        ServerProcess(config, folder / "server.log") as server,
        concurrent.futures.ProcessPoolExecutor(NUM_PROCESSES, context) as processes,
    ):
        started = time.monotonic()
        futures = [
            processes.submit(
                clients, server.address, ranks[number::NUM_PROCESSES], seconds, seed
            )
            for number in range(NUM_PROCESSES)
        ]
        pause = min(SECONDS_BETWEEN_READINGS, seconds / 30)
        while time.monotonic() - started < seconds and server.is_running:
            time.sleep(pause)
            held.append(server.held())
            print(
                f"{time.monotonic() - started:6.0f} s  {held[-1].rss_bytes / 2**20:.1f}"
                f" MiB  {held[-1].num_fds} descriptors  {held[-1].num_threads} threads",
                flush=True,
            )
        received = [one for future in futures for one in future.result()]
    return received, held


def clients(
    address: str, ranks: Sequence[tuple[str, int]], seconds: float, seed: int
) -> list[Received]:
    """Trains as some ranks, each in a thread, until the time is over."""
    stop_at = time.monotonic() + seconds
    services: dict[tuple[str, int], curator.Service] = {}
    with concurrent.futures.ThreadPoolExecutor(len(ranks)) as threads:
        futures = [
            threads.submit(train, address, session, rank, stop_at, seed, services)
            for session, rank in ranks
        ]
        concurrent.futures.wait(futures, seconds + SECONDS_TO_STOP)
        # Who is left waits for the reports of a rank that has stopped.
        for service in list(services.values()):
            service.close()
        return [future.result() for future in futures]


def train(
    address: str,
    name: str,
    rank: int,
    stop_at: float,
    seed: int,
    services: dict[tuple[str, int], curator.Service],
) -> Received:
    """Trains as one rank until the time is over; its connection is in ``services``."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), rank])
    with_losses = int(name.rpartition("-")[2]) % 2 == 1
    steps: list[int] = []
    digests: list[int] = []
    num_breaks, error = 0, ""
    state: dict[str, Any] | None = None
    try:
        while time.monotonic() < stop_at:
            with curator.connect(address) as service:
                services[name, rank] = service
                for _ in range(3):
                    session = service.open(name, rank=rank, world_size=WORLD_SIZE)
                    if state is not None:
                        session.load_state_dict(state)
                    left = int(rng.geometric(1 / STEPS_TO_BREAK))
                    for batch in session.batches():
                        steps.append(batch.step)
                        digests.append(zlib.crc32(batch.ids.tobytes()))
                        losses = rng.random(len(batch)) if with_losses else None
                        session.report(batch, loss=losses)
                        left -= 1
                        if not left or time.monotonic() > stop_at:
                            break
                    state = session.state_dict()
                    session.close()
                    num_breaks += 1
                    if time.monotonic() > stop_at:
                        break
    except Exception as caught:
        # Ranks that are behind have stopped: nobody reports any more.
        if time.monotonic() < stop_at:
            error = f"{type(caught).__name__}: {caught}"
    return Received(
        session=name,
        rank=rank,
        steps=np.array(steps, np.int64),
        digests=np.array(digests, np.uint32),
        num_breaks=num_breaks,
        error=error,
    )


def compare(
    folder: Path, received: Sequence[Received]
) -> tuple[list[dict[str, object]], list[Target]]:
    """Compares what was received with what the ledgers have."""
    rows: list[dict[str, object]] = []
    for name in sessions():
        ranks = [one for one in received if one.session == name]
        ledger = Ledger(folder / "state" / "sessions" / name / "ledger.sqlite")
        num_steps = max(int(one.steps.max(initial=-1)) for one in ranks) + 1
        # By step and rank; of what a step was defined to have.
        expected = np.array(
            [
                [zlib.crc32(part.tobytes()) for part in np.split(r.ids, WORLD_SIZE)]
                for start in range(0, num_steps, 1000)
                for r in ledger.steps(start, min(start + 1000, num_steps))
            ],
            np.uint32,
        )
        least = min(int(one.steps.max(initial=-1)) for one in ranks) + 1
        rows.append(
            {
                "session": name,
                "steps": num_steps,
                "received": sum(len(one.steps) for one in ranks),
                "breaks": sum(one.num_breaks for one in ranks),
                "lost": sum(_lost(one) for one in ranks),
                "twice": sum(len(one.steps) - len(set(one.steps)) for one in ranks),
                "other ids": sum(
                    int((one.digests != expected[one.steps, one.rank]).sum())
                    for one in ranks
                ),
                "open": max(0, least - ledger.next_step()),
                "errors": sum(bool(one.error) for one in ranks),
            }
        )
        ledger.close()
    for error in sorted({one.error for one in received if one.error}):
        print(f"ERROR {error}")
    targets = [
        Target(f"{key}, all sessions", total, "", "0", total == 0)
        for key in ("lost", "twice", "other ids", "open", "errors")
        for total in [sum(int(str(row[key])) for row in rows)]
    ]
    return rows, targets


def _lost(one: Received) -> int:
    """Returns how many steps before its last a rank has not received."""
    return int(one.steps.max(initial=-1)) + 1 - len(set(one.steps.tolist()))


def growth(held: Sequence[Held]) -> list[Target]:
    """Compares what the server held after the first fifth with what it held last."""
    fifth = max(1, len(held) // 5)
    second, last = held[fifth : 2 * fifth], held[-fifth:]

    def middle(part: Sequence[Held], name: str) -> float:
        return statistics.median(getattr(one, name) for one in part)

    memory = middle(last, "rss_bytes") / middle(second, "rss_bytes") - 1
    fds = middle(last, "num_fds") - middle(second, "num_fds")
    # How many there are depends on how many streams are being opened at the moment.
    threads = middle(last, "num_threads") / middle(second, "num_threads") - 1
    return [
        Target("growth of resident memory", memory, "", "< 0.05", memory < 0.05),
        Target("growth of file descriptors", fds, "", "<= 0", fds <= 0),
        Target("growth of threads", threads, "", "< 0.05", threads < 0.05),
    ]


if __name__ == "__main__":
    main()
