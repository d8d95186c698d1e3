"""What the quickstart found: a table, a plot, and a JSON file."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from benchmarks.report import Report, Target
from examples.quickstart.train import Clock, Point


@dataclasses.dataclass(frozen=True)
class Arm:
    """One arm of the comparison.

    Attributes:
        name: Its policy.
        points: Its evaluations.
        clock: What training cost the trainer's process.
        server_cpu: CPU seconds of its server, start to end.
        stall: Seconds that the trainer waited for batches.
        cost: What selection cost, as the session's ledger has it.
    """

    name: str
    points: list[Point]
    clock: Clock
    server_cpu: float
    stall: float
    cost: Mapping[str, float]

    @property
    def num_steps(self) -> int:
        """How many steps it trained."""
        return self.points[-1].step

    @property
    def mismatched(self) -> float:
        """Share of mismatched pairs in all that it trained on."""
        steps = [point.step for point in self.points]
        lengths = [b - a for a, b in zip([0, *steps], steps, strict=False)]
        shares = [point.mismatched for point in self.points]
        return sum(n * s for n, s in zip(lengths, shares, strict=True)) / steps[-1]

    def first_at(self, top5: float) -> Point | None:
        """Returns the first evaluation that reached an accuracy."""
        return next((p for p in self.points if p.top5 >= top5), None)


@dataclasses.dataclass(frozen=True)
class Result:
    """The whole run.

    Attributes:
        seed: Of everything.
        arms: Uniform, then joint.
        reference_steps: How long the reference was trained.
        reference_cost: What that cost.
        reference_top5: How good the reference is itself.
        total_wall: Seconds of the whole command.
    """

    seed: int
    arms: list[Arm]
    reference_steps: int
    reference_cost: Clock
    reference_top5: float
    total_wall: float

    def cpu(self, arm: Arm) -> float:
        """Returns the total CPU seconds of an arm: trainer, server and reference."""
        reference = self.reference_cost.cpu if arm.cost["scoring_seconds"] else 0.0
        return arm.clock.cpu + arm.server_cpu + reference

    def wall(self, arm: Arm, point: Point) -> float:
        """Returns wall-clock seconds to a point, the reference's training included."""
        reference = self.reference_cost.wall if arm.cost["scoring_seconds"] else 0.0
        return reference + point.wall


def write(result: Result, folder: Path) -> None:
    """Prints the table; writes ``result.json`` and ``result.png``."""
    uniform, joint = result.arms
    goal = uniform.points[-1].top5
    reached = joint.first_at(goal)
    rows = [_row(result, arm, arm.first_at(goal)) for arm in result.arms]
    ratio = float("inf") if reached is None else reached.step / uniform.num_steps
    cpu_ratio = result.cpu(joint) / result.cpu(uniform)
    report = Report(
        title=f"quickstart, seed {result.seed}: top-5 retrieval on the held-out vendor",
        rows=rows,
        targets=[
            Target(
                "steps to uniform's final top-5, joint/uniform",
                ratio,
                "",
                "<= 0.25",
                ratio <= 0.25,
            ),
            Target("total CPU, joint/uniform", cpu_ratio, "", "< 1", cpu_ratio < 1),
            Target(
                "whole command",
                result.total_wall,
                "s",
                "< 360",
                result.total_wall < 360,
            ),
        ],
    )
    report.print()
    report.write(folder / "result.json")
    print(
        f"\nThe reference ({result.reference_steps} steps, "
        f"{result.reference_cost.cpu:.1f} CPU s, counted to joint) reaches top-5 "
        f"{result.reference_top5:.3f} itself.\n"
        f"{folder / 'result.png'} and {folder / 'result.json'} written."
    )
    _plot(result, folder / "result.png")


def _row(result: Result, arm: Arm, reached: Point | None) -> dict[str, object]:
    last = arm.points[-1]
    return {
        "arm": arm.name,
        "steps": arm.num_steps,
        "top-1": round(last.top1, 4),
        "top-5": round(last.top5, 4),
        "steps to goal": None if reached is None else reached.step,
        "s to goal": None if reached is None else round(result.wall(arm, reached), 1),
        "mismatched": round(arm.mismatched, 3),
        "wall s": round(result.wall(arm, last), 1),
        "CPU s": round(result.cpu(arm), 1),
        "trainer CPU s": round(arm.clock.cpu, 1),
        "server CPU s": round(arm.server_cpu, 1),
        "scoring s": round(arm.cost["scoring_seconds"], 1),
        "selection s": round(arm.cost["selection_seconds"], 1),
        "stall s": round(arm.stall, 1),
    }


def _plot(result: Result, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    goal = result.arms[0].points[-1].top5
    figure, (by_step, by_time) = plt.subplots(
        1, 2, figsize=(10, 4), sharey=True, layout="constrained"
    )
    for arm, color in zip(result.arms, ("tab:gray", "tab:blue"), strict=True):
        top5 = [point.top5 for point in arm.points]
        by_step.plot([p.step for p in arm.points], top5, color=color, marker=".")
        by_time.plot(
            [result.wall(arm, p) for p in arm.points],
            top5,
            color=color,
            marker=".",
            label=arm.name,
        )
    for axes in (by_step, by_time):
        axes.axhline(goal, color="tab:gray", linewidth=0.8, linestyle="--")
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    by_step.set(xlabel="training steps", ylabel="top-5 retrieval, held-out vendor")
    by_time.axvspan(
        0,
        result.reference_cost.wall,
        color="tab:blue",
        alpha=0.1,
        label="training joint's reference",
    )
    by_time.set(xlabel="wall-clock seconds, selection and reference included")
    by_time.legend(loc="lower right")
    figure.suptitle("The same model and loop; only who chose the batches differs")
    figure.savefig(path, dpi=120)
    plt.close(figure)
