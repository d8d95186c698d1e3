"""Preparing the quickstart's data and models, and training one arm of it."""

from __future__ import annotations

import dataclasses
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import torch

import curator
from curator.models import write_weights
from examples.quickstart import data, model, report, train

__all__ = ["Prepared", "prepare", "run_arm"]

# The best of 0.0004 to 0.006 for the uniform arm; see the report's notes.
LEARNING_RATE = {"uniform": 7.5e-4, "joint": 1.5e-3, "reference": 3e-3}
REFERENCE_STEPS = 300
NUM_EVALUATIONS = 15


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What every arm shares.

    Attributes:
        folder: The pool, the weights and the server's configuration.
        task: The held-out retrieval task.
        reference_steps: What the reference model was trained for.
        reference_cost: What that cost.
        reference_top5: How good it is.
    """

    folder: Path
    task: data.Pairs
    reference_steps: int
    reference_cost: train.Clock
    reference_top5: float


def prepare(folder: Path, seed: int, *, smoke: bool) -> Prepared:
    """Builds the pool, the initial weights and the reference model in a new folder."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    print("data      five vendors' emoji, built into a pool of 40,000 pairs ...")
    emoji = data.load_emoji()
    data.write_pool(data.make_pool(emoji, seed), folder / "pool.arrow")
    task = data.make_held_out(emoji)
    torch.manual_seed(seed)
    initial = model.build()
    write_weights(folder / "initial.safetensors", initial)

    reference_steps = 10 if smoke else REFERENCE_STEPS
    torch.manual_seed(1000 + seed)
    reference = model.build()
    reference_cost = train.train_on_curated(
        reference,
        data.make_curated(emoji, seed),
        reference_steps,
        LEARNING_RATE["reference"],
        seed,
    )
    write_weights(folder / "reference.safetensors", reference)
    top1, top5 = train.evaluate(reference, task)
    print(
        f"reference {reference_steps} steps on the curated set: top-1 {top1:.3f}, "
        f"top-5 {top5:.3f}, {reference_cost.cpu:.1f} CPU s"
    )
    write_config(folder, seed, smoke=smoke)
    return Prepared(folder, task, reference_steps, reference_cost, top5)


def write_config(folder: Path, seed: int, *, smoke: bool) -> None:
    """Writes the server's configuration beside the data that it names."""
    text = Path(__file__).with_name("server.toml").read_text()
    text = text.replace('pool = "emoji"', f'pool = "emoji"\nseed = {seed}')
    if smoke:
        text = text.replace("num_steps = 1600", "num_steps = 30")
        text = text.replace("num_steps = 300", "num_steps = 15")
    (folder / "server.toml").write_text(text)


def run_arm(
    name: str, task: data.Pairs, folder: Path, config: str = "server.toml"
) -> report.Arm:
    """Trains one arm against a server of its own; returns its curve and its cost."""
    torch.manual_seed(0)
    learner = model.build()
    _load(learner, folder / "initial.safetensors")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "curator.cli.__main__",
            "serve",
            str(folder / config),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = _address(server)
        with curator.connect(address) as service, service.open(name) as session:
            points, clock = train.train_from_session(
                learner,
                session,
                task,
                LEARNING_RATE[name],
                NUM_EVALUATIONS,
                lambda point: _show(name, session, point),
            )
            cost = dict(session.describe().cost)
            stall = session.stall_seconds
    finally:
        server.terminate()
        server.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    server_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print()
    return report.Arm(name, points, clock, server_cpu, stall, cost)


def _address(server: subprocess.Popen[str]) -> str:
    """Returns where a server listens, from the first line that it prints."""
    assert server.stdout is not None
    words = server.stdout.readline().split()
    if not words:
        sys.exit("the server did not start; its message is above")
    return words[-1]


def _load(module: torch.nn.Module, path: Path) -> None:
    from safetensors.torch import load_file

    module.load_state_dict(load_file(path))


def _show(name: str, session: curator.Session, point: train.Point) -> None:
    end = "\n" if not sys.stdout.isatty() else "\r"
    print(
        f"{name:9} step {point.step:4}/{session.info.spec.num_steps}  top-5 "
        f"{point.top5:.3f}  mismatched {point.mismatched:.0%}  {point.wall:5.1f} s  "
        f"stall {session.stall_seconds:4.1f} s",
        end=end,
        flush=True,
    )
