"""The quickstart's joint arm, scored on a Ray cluster: the same batches, to the bit.

    python examples/ray_quickstart.py

Trains the joint arm twice from the same initial weights: with the scorers in the
server's process, and as two actors of a Ray cluster that starts and ends with the
server. Nothing else in the configuration differs. The two learning curves have to be
equal; what differs is what it costs to be able to add machines. Needs the extra `ray`.
"""

import os

# As in the quickstart: one thread each for the trainer and the scorers.
os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from examples.quickstart import arms, report

OUT = Path("out")
RAY = """
[ray]
address = "local"
min_scorers = 2
num_cpus = 0.5
"""


def main() -> int:
    """Runs the arm on both executors and compares."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of data, weights, batches")
    parser.add_argument(
        "--smoke", action="store_true", help="a few steps of everything: does it run?"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = OUT / ("ray-quickstart-smoke" if arguments.smoke else "ray-quickstart")
    prepared = arms.prepare(folder, arguments.seed, smoke=arguments.smoke)
    local = (folder / "server.toml").read_text()
    on_ray = local.replace("[server]", '[server]\nexecutor = "ray"')
    on_ray = on_ray.replace('state_dir = "state"', 'state_dir = "state-ray"')
    (folder / "ray.toml").write_text(on_ray + RAY)
    done = {
        name: arms.run_arm("joint", prepared.task, folder, config)
        for name, config in (("local", "server.toml"), ("ray", "ray.toml"))
    }
    print(f"{'executor':10}{'top-5':>8}{'wall s':>9}{'stall s':>9}{'server CPU s':>14}")
    for name, arm in done.items():
        print(
            f"{name:10}{arm.points[-1].top5:8.3f}{arm.clock.wall:9.1f}{arm.stall:9.1f}"
            f"{arm.server_cpu:14.1f}"
        )
    print("(the CPU time of Ray's own processes is not in the last column)")
    same = _curve(done["local"]) == _curve(done["ray"])
    print(f"the learning curves are {'equal' if same else 'DIFFERENT'}")
    return 0 if same else 1


def _curve(arm: report.Arm) -> list[tuple[int, float, float]]:
    return [(point.step, point.top5, point.mismatched) for point in arm.points]


if __name__ == "__main__":
    sys.exit(main())
