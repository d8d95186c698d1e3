"""A two-tower model that does what files tell it to, in whichever process it is."""

import os
import signal
import threading
from pathlib import Path

import torch
import towers


class Obedient(towers.Towers):
    """Looks for orders before every forward pass; each order is obeyed once."""

    def __init__(self, orders, fail_on):
        super().__init__(width=3, fail_on=fail_on, nan_on=None, gate=False)
        self._orders = orders

    def forward(self, batch):
        for order in ("die", "hang"):
            try:
                os.unlink(self._orders / order)
            except FileNotFoundError:
                continue
            (self._orders / f"{order}-done").touch()
            if order == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()
        return super().forward(batch)


def build(*, orders, parent, seed=0, fail_on=None, refuse=False):
    """Returns the model.

    Args:
        orders: The folder of orders; the process leaves its number there, and in that
            file which GPUs it may see.
        parent: The process of the service, to which no order applies.
        seed: Of the weights.
        fail_on: An example that cannot be scored.
        refuse: Whether it cannot be built anywhere but in the service.
    """
    if os.getpid() != parent:
        if refuse:
            message = "no such model on this node"
            raise RuntimeError(message)
        mine = Path(orders, f"new-{os.getpid()}")
        mine.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        mine.rename(Path(orders, f"pid-{os.getpid()}"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Obedient(Path(orders), fail_on)
