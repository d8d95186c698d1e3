"""The tree of commands; each one is in its file."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from curator.cli import (
    checkpoint,
    completion,
    inspect,
    plan,
    report,
    score,
    select,
    serve,
    sessions,
)
from curator.cli.parser import make_parser
from curator.errors import CuratorError

__all__ = ["main"]

COMMANDS = (
    serve.COMMAND,
    sessions.COMMAND,
    score.COMMAND,
    plan.COMMAND,
    select.COMMAND,
    report.COMMAND,
    checkpoint.CHECKPOINT,
    checkpoint.RESTORE,
    inspect.COMMAND,
    completion.COMMAND,
)


# What a shell reports of a process that SIGINT, or SIGPIPE, has ended.
_INTERRUPTED, _BROKEN_PIPE = 130, 141
_BUG = 70  # EX_SOFTWARE of sysexits.h
_DEBUG = "CURATOR_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    With the environment variable ``CURATOR_DEBUG`` errors come with their traceback.

    Returns:
        0 on success, 1 after an error (one line on stderr), 2 for a wrong call, 70
        after a mistake of ours, 130 after Ctrl-C, 141 when nobody reads what is
        printed; some commands have others.
    """
    _open_streams()
    try:
        try:
            parsed = make_parser(COMMANDS).parse_args(arguments)
            return parsed.run(parsed)
        finally:
            sys.stdout.flush()  # here, where what goes wrong can be told
    except BrokenPipeError:
        _drop_output()  # as `curator inspect ... | head` does
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except CuratorError as error:
        return _fail(str(error), 1)
    except OSError as error:  # of what is printed, as a rule: a disk is full
        where = "" if error.filename is None else f" {str(error.filename)!r}"
        _drop_output()
        return _fail(f"cannot read or write{where}: {error.strerror or error}", 1)
    except MemoryError:
        return _fail("out of memory", 1)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        hint = "" if _DEBUG in os.environ else f"; {_DEBUG}=1 shows where"
        return _fail(f"a bug of batch-curator, please report it: {what}{hint}", _BUG)


def _fail(message: str, status: int) -> int:
    """Prints an error, on one line of stderr; returns the exit status."""
    if os.environ.get(_DEBUG):
        traceback.print_exc()
    line = " ".join(message.splitlines())  # what others raise may have several
    with contextlib.suppress(OSError):  # nobody is there to be told
        print(f"curator: {line}", file=sys.stderr, flush=True)
    return status


def _drop_output() -> None:
    """Drops what cannot be printed, which Python tries once more at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Makes stdout and stderr take what is printed.

    Those that the caller has closed go to nobody.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the end
    # Names and texts of the data, on a terminal that has no such letters.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
