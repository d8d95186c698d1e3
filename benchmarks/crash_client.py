"""A trainer in a process of its own, which may be killed at any moment.

    python crash_client.py ADDRESS WORLD RANK WORLD_SIZE CHECKPOINT

After each step it writes a checkpoint as a trainer would, whole or not at all: what it
has received, and its session's state. A later process goes on from there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import curator
from benchmarks.crash_stream import Record, record, steps
from benchmarks.crash_worlds import WORLDS

__all__ = ["main", "received"]


def received(checkpoint: Path) -> list[Record]:
    """Returns the records of a checkpoint, none where there is no file."""
    if not checkpoint.exists():
        return []
    return json.loads(checkpoint.read_text())["records"]


def main() -> NoReturn:
    """Trains as the arguments of the process say."""
    address, name, rank, world_size, path = sys.argv[1:]
    world, checkpoint = WORLDS[name], Path(path)
    records = received(checkpoint)
    with curator.connect(address, timeout=60.0, retry_seconds=60.0) as service:
        session = service.open("s", rank=int(rank), world_size=int(world_size))
        if checkpoint.exists():
            session.load_state_dict(json.loads(checkpoint.read_text())["state"])
        else:
            _save(checkpoint, records, session)
        for batch in steps(world, session, lambda step: print(step, flush=True)):
            records.append(record(batch))
            _save(checkpoint, records, session)
    sys.stdout.flush()
    # At once: gRPC's threads can hold the interpreter up for ever when it finalizes,
    # and what is to be seen here is the stream.
    os._exit(0)


def _save(checkpoint: Path, records: list[Record], session: curator.Session) -> None:
    part = checkpoint.with_suffix(".part")
    part.write_text(json.dumps({"records": records, "state": session.state_dict()}))
    os.replace(part, checkpoint)


if __name__ == "__main__":
    main()
