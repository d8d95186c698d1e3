"""How fast batches arrive, against a bare gRPC byte stream of the same size.

    python -m benchmarks.delivery [--json FILE]

Server and client are two processes of this machine. The session's steps are defined
before the clock runs, so what is measured is delivery: the ledger read, the rows
gathered at random from memory-mapped Arrow IPC files, encoded, sent, received and
decoded into arrays. A client on the server's machine has its batches through a Unix
socket; to be compared, it also has them through gRPC, as one elsewhere would. The bare
stream sends the same number of bytes in messages of the same size, over the loopback,
from one block of memory, and the client drops them. All three are run in turn; the
ratios are taken run by run.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa

import curator
from benchmarks.report import Report, Target
from curator import wire
from curator.rpc.v1 import curation_pb2 as pb

BATCH_SIZE = 256
ROUNDS = 7
# (bytes of an example, examples in the pool, steps of a run)
SIZES = ((2 << 10, 200_000, 512), (256 << 10, 4_000, 8))


def main() -> None:
    """Measures both sizes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    targets: list[Target] = []
    for example_bytes, num_examples, num_steps in SIZES:
        ours, through_grpc, bare = measure(example_bytes, num_examples, num_steps)
        ratios = sorted(a / b for a, b in zip(ours, bare, strict=True))
        ratio = statistics.median(ratios)
        remote = statistics.median(
            a / b for a, b in zip(through_grpc, bare, strict=True)
        )
        rows.append(
            {
                "example KB": example_bytes >> 10,
                "batch": BATCH_SIZE,
                "MB per run": round(BATCH_SIZE * example_bytes * num_steps / 1e6),
                "bare MB/s": round(statistics.median(bare) / 1e6),
                "curator MB/s": round(statistics.median(ours) / 1e6),
                "batches/s": round(
                    statistics.median(ours) / (BATCH_SIZE * example_bytes), 1
                ),
                "ratio": round(ratio, 2),
                "lowest": round(ratios[0], 2),
                "highest": round(ratios[-1], 2),
                "through gRPC MB/s": round(statistics.median(through_grpc) / 1e6),
                "its ratio": round(remote, 2),
            }
        )
        name = f"bytes/s, {example_bytes >> 10} KB examples, curator/bare"
        targets.append(Target(name, ratio, "", ">= 0.7", ratio >= 0.7))
    title = f"delivery, two processes on one machine, median of {ROUNDS} rounds"
    report = Report(title=title, rows=rows, targets=targets)
    report.print()
    if arguments.json:
        report.write(Path(arguments.json))


def measure(
    example_bytes: int, num_examples: int, num_steps: int
) -> tuple[list[float], list[float], list[float]]:
    """Returns bytes per second of each run: ours, ours through gRPC, the bare one."""
    num_bytes = BATCH_SIZE * example_bytes * num_steps
    batch_bytes = BATCH_SIZE * example_bytes
    bare_command = [sys.executable, "-m", __spec__.name, "--bare"]
    with (
        served(example_bytes, num_examples, num_steps) as session,
        running([*bare_command, str(batch_bytes), str(num_steps)]) as bare_server,
    ):
        start = session.state_dict()
        ours: list[float] = []
        through_grpc: list[float] = []
        bare: list[float] = []
        for _ in range(ROUNDS + 1):
            session.load_state_dict(start)
            ours.append(num_bytes / timed(lambda: receive(session, num_bytes)))
            session.load_state_dict(start)
            with elsewhere():
                through_grpc.append(
                    num_bytes / timed(lambda: receive(session, num_bytes))
                )
            bare.append(
                num_bytes / timed(lambda: receive_bare(bare_server.address, num_bytes))
            )
    # The first runs define the steps and warm the page cache.
    return ours[1:], through_grpc[1:], bare[1:]


@contextmanager
def served(
    example_bytes: int, num_examples: int, num_steps: int
) -> Iterator[curator.Session]:
    """Yields a session that a server in a process of its own streams."""
    with tempfile.TemporaryDirectory() as folder:
        write_pool(Path(folder) / "pool.arrow", example_bytes, num_examples)
        config = Path(folder) / "server.toml"
        config.write_text(
            f"""
            [server]
            listen = "127.0.0.1:0"
            state_dir = "state"
            [pools.pool]
            format = "arrow"
            path = "pool.arrow"
            [sessions.delivery]
            pool = "pool"
            batch_size = {BATCH_SIZE}
            num_steps = {num_steps}
            """
        )
        serve = [sys.executable, "-m", "curator.cli.__main__", "serve", str(config)]
        with (
            running(serve) as server,
            curator.connect(server.address) as service,
        ):
            yield service.open("delivery")


def elsewhere() -> AbstractContextManager[object]:
    """Returns what has clients offer no Unix socket, as if on another machine."""
    return unittest.mock.patch.object(wire.UnixListener, "offer", pb.UnixSocket())


def write_pool(path: Path, example_bytes: int, num_examples: int) -> None:
    """Writes rows of random bytes, in record batches of 64 MiB."""
    kind = pa.fixed_shape_tensor(pa.uint8(), [example_bytes])
    schema = pa.schema({"data": kind})
    rng = np.random.default_rng(0)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        left = num_examples
        while left:
            rows = min(left, (64 << 20) // example_bytes)
            values = rng.integers(0, 256, rows * example_bytes, dtype=np.uint8)
            flat = pa.FixedSizeListArray.from_arrays(values, example_bytes)
            column = pa.ExtensionArray.from_storage(kind, flat)
            writer.write_batch(pa.record_batch([column], schema=schema))
            left -= rows


def receive(session: curator.Session, num_bytes: int) -> None:
    """Receives every batch of a session as arrays."""
    received = sum(batch["data"].nbytes for batch in session.batches())
    assert received == num_bytes, (received, num_bytes)


def receive_bare(address: str, num_bytes: int) -> None:
    """Receives the bare stream."""
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options=options) as channel:
        received = sum(len(m) for m in channel.unary_stream("/bare/Stream")(b""))
    assert received == num_bytes, (received, num_bytes)


def timed(action: Callable[[], None]) -> float:
    """Returns how long an action takes, in seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


class running:  # noqa: N801 - reads as a phrase: with running(command) as server
    """A server process that prints its address in its first line."""

    def __init__(self, command: list[str]) -> None:
        self._command = command

    def __enter__(self) -> "running":
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.address = self._process.stdout.readline().split()[-1]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


async def serve_bare(batch_bytes: int, num_steps: int) -> None:
    """Serves the bare stream until it is killed."""
    block = memoryview(np.random.default_rng(0).bytes(batch_bytes))
    messages = [
        bytes(block[start : start + wire.CHUNK_BYTES])
        for start in range(0, batch_bytes, wire.CHUNK_BYTES)
    ]

    async def stream(_: bytes, __: object) -> AsyncIterator[bytes]:
        for _step in range(num_steps):
            for message in messages:
                yield message

    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handler = grpc.unary_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bare", {"Stream": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"bare stream on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        asyncio.run(serve_bare(int(sys.argv[2]), int(sys.argv[3])))
    else:
        main()
