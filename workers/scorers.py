"""Joins this machine to a Ray cluster as a node for scorers.

::

    python workers/scorers.py --address HEAD:6379 [--python-path DIR ...]
        [-- OPTION OF RAY START ...]

The service (``server.executor = "ray"``) or ``curator score`` starts the scorers; this
gives them a place. Exit status: 0 after SIGTERM or SIGINT, 1 when the cluster cannot be
joined or goes away, 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path

CONNECT_SECONDS = 10.0


def main() -> int:
    """Holds a node of a cluster and returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Join a Ray cluster as a node for scorers, until SIGTERM.",
        epilog="what follows -- goes to 'ray start' as it is: -- --num-cpus=4",
    )
    parser.add_argument("--address", required=True, metavar="HOST:PORT", type=_address)
    parser.add_argument(
        "--python-path", nargs="+", default=[], type=_folder, metavar="DIR",
        help="where factories of models lie",
    )  # fmt: skip
    parser.add_argument("options", nargs="*", metavar="OPTION")
    arguments = parser.parse_args()
    missing = [n for n in ("ray", "curator") if importlib.util.find_spec(n) is None]
    if missing:
        return _failed(
            f"{' and '.join(missing)} cannot be imported by {sys.executable}: "
            "pip install 'batch-curator[ray]'"
        )
    host, _, port = arguments.address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        return _failed(f"no Ray cluster at {arguments.address}: {error}")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
    command += [f"--address={arguments.address}", *arguments.options]
    return _hold(command, arguments.python_path, arguments.address)


def _hold(command: list[str], python_path: list[str], address: str) -> int:
    """Runs ``ray start --block`` until a signal comes, or it ends by itself."""
    given = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*python_path, *([given] if given else [])])
    stopping: list[int] = []
    nodes: list[subprocess.Popen[bytes]] = []

    def stop(number: int, _: object) -> None:
        stopping.append(number)
        for node in nodes:
            node.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    print(f"joining {address} with Python {platform.python_version()}", flush=True)
    # In a session of its own: Ctrl-C is for this process to pass on.
    node = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
    )
    nodes.append(node)
    if stopping:  # before there was a node to tell
        node.terminate()
    status = node.wait()
    if stopping:
        print("left the cluster", flush=True)
        return 0
    return _failed(
        f"the cluster at {address} could not be joined, or went away: 'ray start' "
        f"ended with status {status}, and said above why"
    )


def _failed(message: str) -> int:
    print(f"scorers.py: {message}", file=sys.stderr)
    return 1


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (host and port.isdigit() and int(port) < 65536):
        msg = f"expected HOST:PORT, such as 10.0.0.1:6379; got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return text


def _folder(text: str) -> str:
    if not Path(text).is_dir():
        msg = f"no folder {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return str(Path(text).resolve())


if __name__ == "__main__":
    sys.exit(main())
