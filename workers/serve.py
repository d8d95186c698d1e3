"""Serves sessions: the process in front of the scorers, as ``curator serve``.

::

    python workers/serve.py /etc/curator/server.toml [--listen HOST:PORT]
                            [--insecure]

Exit status: 0 after SIGTERM or SIGINT, 1 after an error (its message is the last line
on stderr), 2 for a wrong call.
"""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """Serves a configuration and returns the exit status."""
    # Imported here, which takes a second in which Ctrl-C may come.
    from curator.cli.serve import serve
    from curator.errors import CuratorError

    parser = argparse.ArgumentParser(
        description="Serve the sessions of a configuration until SIGTERM."
    )
    parser.add_argument("config", metavar="CONFIG.toml")
    parser.add_argument("--listen", metavar="HOST:PORT", help="instead of the config's")
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="let other machines reach it without TLS or tokens; see docs/security.md",
    )
    arguments = parser.parse_args()
    try:
        return serve(arguments.config, arguments.listen, insecure=arguments.insecure)
    except CuratorError as error:
        print(f"serve.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before there was anything to stop
        sys.exit(130)
