"""The process of Ray's driver: ``python -m curator.engine._ray_main``.

Started by :class:`curator.engine._ray_process.RayProcess` and by nobody else. Reads a
key from standard input, writes the address at which the driver answers, and ends when
standard input does.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import sys
import threading

from curator.engine._ray_process import Manager
from curator.errors import CuratorError

_METHODS = ("hold", "num_ready", "open", "pair", "score", "stop")


def main() -> int:
    """Serves a driver until standard input ends."""
    # What anything prints must not be taken for the address.
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    key = bytes.fromhex(sys.stdin.readline().strip())
    try:
        from curator.engine._ray_driver import RayDriver
    except CuratorError as error:
        print("error", error, file=output, flush=True)
        return 1
    driver = RayDriver()
    Manager.register("driver", functools.partial(_same, driver), exposed=_METHODS)
    name = _name()
    server = Manager(name, key).get_server()
    print("address", name or server.address, file=output, flush=True)
    threading.Thread(target=_end_with_input, daemon=True).start()
    server.serve_forever()
    return 0


def _same(driver: object) -> object:
    return driver


def _name() -> str | None:
    """Returns a name to answer at, which leaves no file behind; None for a file."""
    return f"\0curator-{secrets.token_hex(16)}" if sys.platform == "linux" else None


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)  # actors end with their owner; Ray's own goodbye takes seconds


if __name__ == "__main__":
    sys.exit(main())
