"""What happens to a world: its server, its trainers or its ranks are killed."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import curator
from benchmarks.crash_client import received
from benchmarks.crash_process import Client, Death, Kill, Server
from benchmarks.crash_server import FAILPOINTS
from benchmarks.crash_stream import Record, merged, record, steps, uninterrupted
from benchmarks.crash_worlds import NUM_STEPS, World, write_world

__all__ = [
    "Outcome",
    "differences",
    "failpoints_of",
    "kill_at",
    "kill_randomly",
    "play",
    "train",
]

# How long a client rides it out; a server is back in seconds.
PATIENCE = 120.0
# (ranks, up to which step): a run that moves from machine to machine.
WORLD_SIZES = ((4, 12), (2, 24), (8, 36), (1, NUM_STEPS))
NUM_RANKS = 4
# Which failpoints a server of any world passes; the others need a model.
_ALWAYS = ("ledger.append", "ledger.report", "ledger.commit")
_OF_LEARNERS = ("ledger.snapshot", "snapshot", "os.fsync", "os.replace", "os.unlink")
_OF_REFERENCES = ("feature", "os.pwrite")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a world.

    Attributes:
        world: Its name.
        scene: What was killed.
        deaths: Those of servers.
        num_clients_killed: Trainers, or ranks, that died.
        num_steps: How many steps were compared.
        mismatches: What is not as in the stream that nothing interrupts.
    """

    world: str
    scene: str
    deaths: list[Death]
    num_clients_killed: int
    num_steps: int
    mismatches: list[str]


# --- kills ---------------------------------------------------------------------------


def failpoints_of(world: World) -> list[str]:
    """Returns where the server of a world can die again and again."""
    prefixes = [*_ALWAYS]
    if world.learner is not None:
        prefixes += _OF_LEARNERS
    if world.reference is not None and world.reference != "table":
        prefixes += _OF_REFERENCES
    return [place for place in FAILPOINTS if place.startswith(tuple(prefixes))]


def kill_randomly(rng: np.random.Generator) -> Kill:
    """Returns a kill a few events from now, at any point of what comes then."""
    return Kill(int(rng.integers(1, 9)), float(rng.uniform(0.0, 0.005)))


def kill_at(place: str, rng: np.random.Generator) -> Kill:
    """Returns a kill at a failpoint; later at random, should it not be reached."""
    return Kill(int(rng.integers(12, 16)), 0.0, f"{place}:{rng.integers(1, 4)}")


# --- scenes --------------------------------------------------------------------------


def play(
    scene: str,
    world: World,
    data: Path,
    folder: Path,
    kills: Sequence[Kill],
    client_kills: Sequence[Kill] = (),
) -> Outcome:
    """Returns what becomes of a world.

    Args:
        scene: ``server``: one trainer, in this process; ``elastic``: as many as
            ``WORLD_SIZES`` say; ``client`` and ``ranks``: in processes of their own.
        world: The world.
        data: Where ``write_pool`` has written.
        folder: An empty one.
        kills: Of its server.
        client_kills: Of its trainer, or of one of the ranks.
    """
    expected = uninterrupted(world, data, folder / "whole")
    folder = folder / "killed"
    num_killed = 0
    with Server(write_world(world, data, folder), kills) as server:
        if scene in ("client", "ranks"):
            size = 1 if scene == "client" else NUM_RANKS
            found = _train_in_processes(world, server, folder, size, client_kills)
            num_killed = len(client_kills)
        else:
            sizes = WORLD_SIZES if scene == "elastic" else ((1, NUM_STEPS),)
            found = list(train(world, server, sizes))
        if server.error is not None:
            raise RuntimeError(server.error)
    mismatches = differences(expected, found)
    if _ledger(folder) != _ledger(folder.with_name("whole")):
        mismatches.append("the ledgers differ")
    return Outcome(
        world.name, scene, server.deaths, num_killed, len(expected), mismatches
    )


def train(
    world: World,
    server: Server,
    sizes: Sequence[tuple[int, int]] = ((1, NUM_STEPS),),
) -> Iterator[Record]:
    """Yields the records of global batches, from ranks in this process."""
    step = 0
    with curator.connect(
        server.address, timeout=PATIENCE, retry_seconds=PATIENCE
    ) as service:
        for world_size, stop in sizes:
            streams = [
                steps(
                    world,
                    service.open("s", rank=rank, world_size=world_size),
                    server.event,
                )
                for rank in range(world_size)
            ]
            while step < stop:
                slices = [next(stream, None) for stream in streams]
                batches = [batch for batch in slices if batch is not None]
                if len(batches) < world_size:
                    return
                yield merged([record(batch) for batch in batches])
                step += 1


def _train_in_processes(
    world: World,
    server: Server,
    folder: Path,
    world_size: int,
    kills: Sequence[Kill],
) -> list[Record]:
    """Returns the records of global batches; the last of the ranks is killed."""
    checkpoints = [folder / f"rank-{rank}.json" for rank in range(world_size)]
    running: dict[int, Client] = {}

    def run(rank: int) -> None:
        place = [str(rank), str(world_size), str(checkpoints[rank])]
        own = kills if rank == world_size - 1 else ()
        for kill in [*own, None]:
            arguments = [server.address, world.name, *place]
            client = running[rank] = Client(arguments, server.event)
            is_done = client.run(kill)
            if is_done != (kill is None):
                msg = f"rank {rank} was to die: {kill}; is it done: {is_done}"
                raise RuntimeError(msg)

    with concurrent.futures.ThreadPoolExecutor(world_size) as threads:
        runs = [threads.submit(run, rank) for rank in range(world_size)]
        concurrent.futures.wait(runs, return_when=concurrent.futures.FIRST_EXCEPTION)
        errors = [run.exception() for run in runs if run.done()]
        if any(errors):
            # The others would wait for the one that failed.
            for client in running.values():
                client.stop()
        for error in filter(None, errors):
            raise error
    ranks = [received(path) for path in checkpoints]
    return [merged(slices) for slices in zip(*ranks, strict=True)]


# --- comparing -----------------------------------------------------------------------


def differences(expected: Sequence[Record], found: Sequence[Record]) -> list[str]:
    """Returns what is not as it should be, one entry per step."""
    differences: list[str] = []
    for step in range(max(len(expected), len(found))):
        if step >= len(found) or step >= len(expected):
            differences.append(f"{len(found)} steps, not {len(expected)}")
            break
        keys = [
            key for key, value in expected[step].items() if found[step][key] != value
        ]
        if keys:
            differences.append(f"step {step}: {', '.join(keys)}")
    return differences


def _ledger(folder: Path) -> list[object]:
    """Returns all that a ledger says but for what scoring cost."""
    path = folder / "state" / "sessions" / "s" / "ledger.sqlite"
    db = sqlite3.connect(path)
    try:
        steps_ = db.execute(
            "SELECT step, epoch, ids, weights, scores, snapshot_step, late FROM steps "
            "ORDER BY step"
        ).fetchall()
        snapshots = db.execute(
            "SELECT snapshot_step, report_step, digest FROM snapshots "
            "ORDER BY snapshot_step"
        ).fetchall()
        # However many ranks reported: the losses of a step, end to end.
        losses: dict[int, bytes] = {}
        for step, blob in db.execute(
            "SELECT step, losses FROM reports ORDER BY step, start"
        ):
            losses[step] = losses.get(step, b"") + blob
    finally:
        db.close()
    return [steps_, snapshots, losses]
