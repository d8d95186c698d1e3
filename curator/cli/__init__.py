"""The ``curator`` command."""

__all__ = ["main"]


def main() -> int:
    """Runs a command, see :func:`curator.cli.__main__.main`."""
    try:
        # Imported here: Ctrl-C while that takes its time is no reason for a traceback.
        from curator.cli.__main__ import main as run

        return run()
    except KeyboardInterrupt:
        return 130
