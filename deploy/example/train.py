"""A trainer in miniature: ``python train.py HOST:PORT [NUM_STEPS]``."""

from __future__ import annotations

import sys

import torch
from pairs import build
from torch.nn.functional import logsigmoid

import curator


def main(target: str, num_steps: int) -> None:
    """Trains, and says how many of the chosen pairs were mismatched ones."""
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with curator.connect(target) as service:
        session = service.open("pairs")
        session.publish(model)
        for batch in session.batches(format="torch"):
            out = model(batch)
            logits = out["queries"] @ out["targets"].T * out["logit_scale"]
            labels = 2 * torch.eye(len(logits)) - 1
            loss = -logsigmoid(labels * (logits + out["logit_bias"])).sum(1)
            optimizer.zero_grad()
            (loss * torch.as_tensor(batch.weights)).mean().backward()
            optimizer.step()
            session.publish(model)
            session.report(batch)
            share = float(torch.as_tensor(batch["mismatched"]).float().mean())
            line = f"step {batch.step}: loss {loss.mean().item():.3f}, "
            sys.stdout.write(f"{line}mismatched {share:.0%}\n")
            if batch.step + 1 >= num_steps:
                break


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20)
