"""Hostile inputs to every call of a server, while a healthy client trains on it.

    python -m benchmarks.fuzz [--inputs N] [--seed S] [--atheris SECONDS] [--json FILE]

The inputs go to a server process over gRPC, many in flight, from processes of their
own. Each has to be answered with a status; an exception that is not one of ours, a
status that says that the server is wrong, or no answer within 30 s is a finding, and
is printed with the messages that show it. Meanwhile a healthy client checks the batches
of its own session against those of a session in this process. What the server holds is
read between rounds, with nothing in flight. With ``--atheris``, the functions that
parse a client's bytes are fuzzed in a process of their own, guided by coverage, if the
package is there. Linux only.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import itertools
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import curator
from benchmarks.fuzz_calls import Caller, Finding, Outcome, minimal, work
from benchmarks.fuzz_inputs import METHODS
from benchmarks.fuzz_world import (
    HEALTHY,
    World,
    look_around,
    tables,
    to_toml,
    write_pool,
)
from benchmarks.report import Report, Target
from benchmarks.server_process import Held, ServerProcess
from curator.rpc.v1 import curation_pb2 as pb

ROUNDS = 20
NUM_PROCESSES, NUM_THREADS = 2, 16
# The healthy client trains this fast.
STEP_SECONDS = 0.05
MAX_SHOWN = 20


def main() -> None:
    """Sends the inputs and prints what came back."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--atheris", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as folder:
        rows, served = fuzz_server(Path(folder), arguments.inputs, arguments.seed)
        targets += served
        if arguments.atheris:
            targets.append(fuzz_parsers(Path(folder), arguments.atheris))
    title = f"{arguments.inputs:,} hostile inputs, seed {arguments.seed}"
    report = Report(title=title, rows=rows, targets=targets)
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


class HealthyClient:
    """Trains on its session in a thread, from when it is made until it is stopped.

    Attributes:
        num_batches: How many batches it got.
        num_wrong: How many were not what they should be.
        slowest: The longest that one took, in seconds.
        error: What ended it.
    """

    def __init__(self, address: str, folder: Path) -> None:
        self.num_batches = self.num_wrong = 0
        self.slowest = 0.0
        self.error: Exception | None = None
        self._address = address
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        table = tables(self._folder)
        table["server"]["state_dir"] = str(self._folder / "expected")
        try:
            with (
                curator.local(table) as local,
                curator.connect(self._address) as service,
            ):
                expected = local.open(HEALTHY).batches()
                session = service.open(HEALTHY)
                batches = session.batches()
                while not self._stop.wait(STEP_SECONDS):
                    started = time.perf_counter()
                    batch = next(batches)
                    session.report(batch)
                    elapsed = time.perf_counter() - started
                    self.slowest = max(self.slowest, elapsed)
                    self.num_batches += 1
                    right = next(expected)
                    self.num_wrong += not (
                        batch.step == right.step
                        and np.array_equal(batch.ids, right.ids)
                        and np.array_equal(batch["image"], right["image"])
                    )
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Lets it end."""
        self._stop.set()
        self._thread.join()


def fuzz_server(
    folder: Path, num_inputs: int, seed: int
) -> tuple[list[dict[str, object]], list[Target]]:
    """Returns the table of answers, and the targets."""
    write_pool(folder / "pairs.arrow")
    config = folder / "server.toml"
    config.write_text(to_toml(tables(folder)))
    log = folder / "server.log"
    with ServerProcess(config, log) as server:
        with curator.connect(server.address) as service:
            world = look_around(service)
        healthy = HealthyClient(server.address, folder)
        started = time.perf_counter()
        outcome, held = run_rounds(server, world, num_inputs, seed)
        seconds = time.perf_counter() - started
        healthy.stop()
        print(f"\n{num_inputs / seconds:,.0f} inputs/s, {seconds:,.0f} s")
        print(
            f"healthy client: {healthy.num_batches} batches, {healthy.num_wrong} wrong,"
            f" slowest {healthy.slowest:.2f} s, {healthy.error or 'no error'}"
        )
        show(list(outcome.findings.values()), server)
        stopped = server.is_running and server.stop()
    codes = sorted({code for _, code in outcome.codes})
    rows: list[dict[str, object]] = [
        {"call": rpc, **{code: outcome.codes[rpc, code] for code in codes}}
        for rpc in METHODS
    ]
    warm = held[len(held) // 5 :]
    growth = warm[-1].rss_bytes / warm[0].rss_bytes - 1
    fds = warm[-1].num_fds - warm[0].num_fds
    threads = warm[-1].num_threads - warm[0].num_threads
    num_found, rate = len(outcome.findings), num_inputs / seconds
    is_healthy = healthy.error is None and healthy.num_batches > 0
    wrong = healthy.num_wrong + (not is_healthy)
    return rows, [
        Target("inputs per second", rate, "/s", "none: for information", True),
        Target("kinds of findings", num_found, "", "0", num_found == 0),
        Target("wrong batches, healthy client", wrong, "", "0", wrong == 0),
        Target("healthy client's batches", healthy.num_batches, "", "> 0", is_healthy),
        Target("slowest healthy step", healthy.slowest, "s", "<= 5", True),
        Target("ended when asked to", stopped, "", "True", stopped),
        Target("growth of resident memory", growth, "", "< 0.05", growth < 0.05),
        Target("growth of file descriptors", fds, "", "<= 0", fds <= 0),
        Target("growth of threads", threads, "", "<= 2", threads <= 2),
    ]


def run_rounds(
    server: ServerProcess, world: World, num_inputs: int, seed: int
) -> tuple[Outcome, list[Held]]:
    """Sends the inputs in rounds; returns the answers and what was held after each."""
    total = Outcome(next_select=world.next_select)
    held: list[Held] = []
    context = multiprocessing.get_context("spawn")
    edges = np.linspace(0, num_inputs, ROUNDS * NUM_PROCESSES + 1).astype(int).tolist()
    with concurrent.futures.ProcessPoolExecutor(NUM_PROCESSES, context) as processes:
        for number in range(ROUNDS):
            started = time.perf_counter()
            parts = edges[number * NUM_PROCESSES :][: NUM_PROCESSES + 1]
            shares = [range(a, b) for a, b in itertools.pairwise(parts)]
            futures = [
                processes.submit(work, server.address, world, seed, share, NUM_THREADS)
                for share in shares
            ]
            for future in futures:
                total.merge(future.result())
            seconds = time.perf_counter() - started
            if not server.is_running:
                print(f"the server died: {server.log.read_text()[-3000:]}")
                break
            held.append(server.held())
            print(
                f"round {number + 1:2}/{ROUNDS}: {held[-1].rss_bytes >> 20} MiB, "
                f"{held[-1].num_fds} descriptors, {held[-1].num_threads} threads, "
                f"{sum(map(len, shares)) / seconds:,.0f} inputs/s, "
                f"{len(total.findings)} kinds of findings",
                flush=True,
            )
    return total, held


def show(findings: list[Finding], server: ServerProcess) -> None:
    """Prints findings with the messages that show them."""
    with Caller(server.address) as caller:
        for finding in findings[:MAX_SHOWN]:
            sent, answer = finding.sent, finding.answer
            print(f"\nFINDING {sent.rpc}, input {finding.number} ({sent.kind})")
            print(f"  {answer.code}: {answer.details[:300]}")
            cls = getattr(pb, METHODS[sent.rpc].input_type.name)
            messages = minimal(finding, caller.call) if server.is_running else []
            for data in messages or sent.messages:
                print(f"  bytes.fromhex({data[:400].hex()!r})  # {len(data)} bytes")
                try:
                    text = str(cls.FromString(data)).strip().replace("\n", " ")
                except Exception:
                    text = "no such message"
                print(f"    {text[:300]}")


def fuzz_parsers(folder: Path, seconds: int) -> Target:
    """Runs the coverage-guided part, which prints what it finds."""
    if importlib.util.find_spec("atheris") is None:
        msg = "--atheris needs the package atheris: pip install atheris"
        raise SystemExit(msg)
    command = [sys.executable, "-m", "benchmarks.fuzz_parsers"]
    done = subprocess.run([*command, str(seconds), str(folder)], check=False)
    failed = done.returncode != 0
    return Target("parsers, coverage-guided: failures", failed, "", "0", not failed)


if __name__ == "__main__":
    main()
