"""Ray clusters of several nodes on this machine, and services that score on them."""

import contextlib
import dataclasses
import os
import select
import signal
import traceback
from pathlib import Path

import worlds

from curator import Config, ModelSpec, PoolSpec, RaySpec, ServerSpec, SessionSpec
from curator.client import Service
from curator.client._local import LocalTransport
from curator.engine import Registry
from curator.policies import Joint

SESSION = SessionSpec(
    pool="pairs",
    batch_size=8,
    super_batch_size=64,
    seed=3,
    policy=Joint(num_chunks=4),
    learner="learner",
    reference="reference",
)
NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}


def config(folder, executor, *, ray=None, learner=None, server=None, **sessions):
    """Returns a configuration whose models take orders from ``folder/orders``.

    Args:
        folder: Of everything.
        executor: ``local`` or ``ray``; each has a state directory of its own.
        ray: Keys of the ``[ray]`` table.
        learner: Arguments of the learner's factory.
        server: Keys of the server.
        sessions: Specifications by name; ``s`` by default.
    """
    orders = folder / "orders"
    orders.mkdir(exist_ok=True)
    model = ModelSpec(
        factory="ray_towers:build",
        columns=worlds.COLUMNS,
        micro_batch_size=16,
        args={"orders": str(orders), "parent": os.getpid()},
    )
    return Config(
        server=ServerSpec(
            state_dir=str(folder / f"state-{executor}"),
            listen="127.0.0.1:0",
            executor=executor,
            python_path=[str(Path(__file__).parent)],
            **(server or {}),
        ),
        ray=RaySpec(num_cpus=0.5, **(ray or {})),
        pools={"ids": PoolSpec(format="virtual", num_examples=100)},
        models={
            "learner": dataclasses.replace(
                model, args={**model.args, **(learner or {})}
            ),
            "reference": dataclasses.replace(model, args={**model.args, "seed": 7}),
        },
        sessions=sessions or {"s": SESSION},
    )


@contextlib.contextmanager
def served(config, pool):
    """Yields a service in this process; its pool ``pairs`` is on disk or in memory."""
    if isinstance(pool, Path):
        spec = PoolSpec(format="arrow", path=str(pool))
        config = dataclasses.replace(config, pools={**config.pools, "pairs": spec})
        pools = {}
    else:
        pools = {"pairs": pool}
    with Service(LocalTransport(Registry(config, pools))) as service:
        yield service


def scorers(folder):
    """Returns the processes that have built a model, oldest first."""
    files = sorted((folder / "orders").glob("pid-*"), key=os.path.getmtime)
    alive = []
    for file in files:
        pid = int(file.name.removeprefix("pid-"))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            alive.append(pid)
    return alive


def end(pids):
    """Waits until processes have ended; returns whether they did in half a minute."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                if not select.select([descriptor], [], [], 30)[0]:
                    return False
            finally:
                os.close(descriptor)
    return True


def order(folder, what):
    """Has the next forward pass of any scorer ``die`` or ``hang``."""
    (folder / "orders" / what).touch()


def obeyed(folder, what):
    """Whether that has happened."""
    return (folder / "orders" / f"{what}-done").exists()


def kill(pid):
    """Ends a process as a lack of memory would."""
    os.kill(pid, signal.SIGKILL)


def add_node(cluster, **options):
    """Adds a node to a cluster; Ray gives each 30 seconds, whatever the machine does.

    Tried again, without what is left of the one that was too slow.
    """
    for _ in range(2):
        try:
            return cluster.add_node(wait=True, **options)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
            for frame, _ in traceback.walk_tb(error.__traceback__):
                node = frame.f_locals.get("self")
                if hasattr(node, "kill_all_processes"):
                    node.kill_all_processes(check_alive=False, allow_graceful=False)
    return cluster.add_node(wait=True, **options)
