"""Scores a pool once, to Parquet files: the offline scoring job, as ``curator score``.

::

    python workers/score.py CONFIG.toml --pool NAME --model NAME --out FOLDER

Exit status: 0 when every example is scored, 130 after SIGINT and 143 after SIGTERM
(running it again continues), 1 after an error (its message is the last line on stderr),
2 for a wrong call.
"""

from __future__ import annotations

import argparse
import sys


def main() -> int:
    """Scores a pool and returns the exit status."""
    # Imported here, which takes a second in which Ctrl-C may come.
    from curator.cli.score import add_arguments, score
    from curator.errors import CuratorError

    parser = argparse.ArgumentParser(
        description="Score every example of a pool with a model, to Parquet files."
    )
    add_arguments(parser)
    try:
        return score(parser.parse_args())
    except CuratorError as error:
        print(f"score.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before there was anything to finish
        sys.exit(130)
