"""Kills servers, trainers and ranks with SIGKILL, and compares the streams of batches.

    python -m benchmarks.crash [--kills 200] [--seed S] [--json FILE]

Every sampler and every policy has a world: a session, and a trainer whose losses and
weights are functions of ids and steps. Its stream comes first from a service in this
process that nothing interrupts; then from a real server, killed at random moments and
before, in and after its writes, and started again each time, while the client carries
on. Ids and their order, weights, scores, rows, snapshot steps and what the ledger holds
in the end have to be equal, byte for byte. In some worlds trainers and ranks are
processes that are killed and go on from their checkpoints, or the number of ranks
changes from 4 to 2, 8 and 1. The seed draws the kills; how a process gets to where it
is killed is up to the machine.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.crash_process import Kill
from benchmarks.crash_scenes import (
    Outcome,
    failpoints_of,
    kill_at,
    kill_randomly,
    play,
)
from benchmarks.crash_worlds import WORLDS, World, write_pool
from benchmarks.report import Report, Target

# Worlds at a time; each has a server that is busy starting most of the time.
AT_ONCE = 2
# Those whose number of ranks changes, and those with trainers of their own.
ELASTIC = ("sampler infobatch", "joint, table", "topk, server")
CLIENTS = ("sampler repb", "joint, trainer", "softmax, server")
RANKS = ("sampler seta", "stratified, table", "importance, server")
# Only the first process of a session writes what it is.
_AT_FIRST = ("ledger.meta:before", "ledger.meta:after", "ledger.commit:before")


def main() -> None:
    """Kills as often as it is asked to, and prints the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="how many, at least")
    parser.add_argument("--seed", type=int, default=0, help="of what draws the kills")
    parser.add_argument("--json", metavar="FILE", help="also write the result there")
    arguments = parser.parse_args()
    # Before a model loads: scores are to be those of servers with one thread.
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.monotonic()
    outcomes = run(arguments.kills, arguments.seed)
    report = report_on(outcomes, arguments.kills, time.monotonic() - started)
    report.print()
    print_kinds(outcomes)
    if arguments.json:
        report.write(Path(arguments.json))


def run(num_kills: int, seed: int) -> list[Outcome]:
    """Plays all scenes, and light ones again until there are enough kills."""
    rng = np.random.default_rng(seed)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_pool(data)
        plans = [*first_plans(num_kills, rng)]
        while plans:
            outcomes += play_all(plans, data, data / f"round-{len(outcomes)}")
            missing = num_kills - num_killed(outcomes)
            plans = [*more_plans(missing, rng)]
    return outcomes


Plan = tuple[str, World, list[Kill], list[Kill]]


def first_plans(num_kills: int, rng: np.random.Generator) -> Iterator[Plan]:
    """Yields every world's scene, and those with ranks and trainers."""
    used: collections.Counter[str] = collections.Counter()
    for world in WORLDS.values():
        # A model takes a server seconds to start: fewer kills where there is one.
        share = 48 if world.is_heavy else 33
        number = max(2, -(-num_kills // share))
        yield "server", world, kills(world, number, used, rng), []
    for scene, names in (("elastic", ELASTIC), ("client", CLIENTS), ("ranks", RANKS)):
        for name in names:
            number = max(1, num_kills // 100)
            own = [kill_randomly(rng) for _ in range(number)]
            clients = [] if scene == "elastic" else own
            yield scene, WORLDS[name], kills(WORLDS[name], number, used, rng), clients


def more_plans(num_missing: int, rng: np.random.Generator) -> Iterator[Plan]:
    """Yields plans for the kills that did not come about: some were not reached."""
    light = [world for world in WORLDS.values() if not world.is_heavy]
    for number in range(-(-max(0, num_missing) // 4)):
        world = light[number % len(light)]
        yield "server", world, [kill_randomly(rng) for _ in range(4)], []


def kills(
    world: World,
    number: int,
    used: collections.Counter[str],
    rng: np.random.Generator,
) -> list[Kill]:
    """Returns kills of a world's server, half of them at its failpoints.

    Args:
        world: The world.
        number: How many.
        used: How often each failpoint was planned; those used least come first.
        rng: Draws the rest.
    """
    drawn: list[Kill] = []
    places = failpoints_of(world)
    for position in range(number):
        if position % 2:
            drawn.append(kill_randomly(rng))
            continue
        place = min(rng.permutation(places).tolist(), key=lambda name: used[name])
        kill = kill_at(place, rng)
        first = _AT_FIRST[int(rng.integers(len(_AT_FIRST)))]
        if position == 0 and used[first] < used[place] + 3:
            place, kill = first, Kill(kill.after_events, 0.0, f"{first}:1")
        used[place] += 1
        drawn.append(kill)
    return drawn


def play_all(plans: Iterable[Plan], data: Path, folder: Path) -> list[Outcome]:
    """Returns what comes of the plans, some at a time."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        played = [
            threads.submit(
                play, scene, world, data, folder / str(number), *kills_of_both
            )
            for number, (scene, world, *kills_of_both) in enumerate(plans)
        ]
        return [future.result() for future in played]


def num_killed(outcomes: Iterable[Outcome]) -> int:
    """Returns how many processes were killed."""
    return sum(len(outcome.deaths) + outcome.num_clients_killed for outcome in outcomes)


# --- what came of it -----------------------------------------------------------------


def report_on(outcomes: list[Outcome], asked: int, seconds: float) -> Report:
    """Returns the table: a row per world and scene."""
    grouped: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        grouped.setdefault((outcome.world, outcome.scene), []).append(outcome)
    rows = [_row(world, scene, group) for (world, scene), group in grouped.items()]
    rows.append(_row("all", "", outcomes))
    number = num_killed(outcomes)
    mismatches = sum(len(outcome.mismatches) for outcome in outcomes)
    for outcome in outcomes:
        for mismatch in outcome.mismatches:
            print(f"MISMATCH {outcome.world}, {outcome.scene}: {mismatch}")
    goal = f">= {asked}"
    return Report(
        title=f"{number} kills with SIGKILL in {len(grouped)} worlds, {seconds:.0f} s",
        rows=rows,
        targets=[
            Target("kills", float(number), "", goal, number >= asked),
            Target("mismatches", float(mismatches), "", "0", mismatches == 0),
        ],
    )


def _row(world: str, scene: str, outcomes: list[Outcome]) -> dict[str, object]:
    deaths = [death for outcome in outcomes for death in outcome.deaths]
    back = [death.back_seconds for death in deaths if death.back_seconds is not None]
    return {
        "world": world,
        "scene": scene,
        "at random": sum(death.kind == "random" for death in deaths),
        "at failpoints": sum(death.kind != "random" for death in deaths),
        "trainers": sum(outcome.num_clients_killed for outcome in outcomes),
        "steps": sum(outcome.num_steps for outcome in outcomes),
        "mismatches": sum(len(outcome.mismatches) for outcome in outcomes),
        "back s, median": statistics.median(back) if back else None,
        "back s, max": max(back, default=None),
    }


def print_kinds(outcomes: Iterable[Outcome]) -> None:
    """Prints how many servers died where."""
    kinds = collections.Counter(d.kind for outcome in outcomes for d in outcome.deaths)
    print("\nservers died")
    for kind, number in sorted(kinds.items()):
        print(f"  {number:4d}  {kind}")


if __name__ == "__main__":
    main()
