"""The folder that a report is written to, and no file in it but its own."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from curator.errors import ConfigError, StorageError
from curator.report._content import Figure, Report
from curator.report._page import to_html

__all__ = ["Written", "check_folder", "write_report"]

_PAGE, _FIGURES = "report.html", "report-*.png"


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        page: The HTML file.
        figures: The PNG files, in the order of the page.
        num_bytes: Size of the page.
    """

    page: Path
    figures: list[Path]
    num_bytes: int


def check_folder(folder: Path) -> None:
    """Checks, before any work, that a report may be written to a folder.

    Raises:
        ConfigError: It has files that no report has written.
        StorageError: It is no folder.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        msg = f"cannot use {str(folder)!r} as a folder: {error.strerror or error}"
        raise StorageError(msg) from error
    own = {_PAGE, *(path.name for path in folder.glob(_FIGURES))}
    others = [name for name in names if name not in own]
    if others:
        more = ", ..." if len(others) > 3 else ""
        msg = (
            f"--out: {str(folder)!r} holds other files ({', '.join(others[:3])}{more}):"
            f" choose another folder. A report only replaces {_PAGE} and {_FIGURES}"
        )
        raise ConfigError(msg)


def write_report(report: Report, folder: Path) -> Written:
    """Writes the page and its plots, in place of those that are there.

    Raises:
        ConfigError: The folder has files that no report has written.
        StorageError: It cannot be written to.
        MissingDependencyError: Jinja is not installed.
    """
    check_folder(folder)
    page = to_html(report).encode()
    figures = _named(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(_FIGURES):
            if old.name not in figures:
                old.unlink()
        _replace(folder, {**figures, _PAGE: page})
    except OSError as error:
        msg = f"cannot write to {str(folder)!r}: {error.strerror or error}"
        raise StorageError(msg) from error
    return Written(folder / _PAGE, [folder / name for name in figures], len(page))


def _named(report: Report) -> dict[str, bytes]:
    """Returns the plots by the names of their files, which differ."""
    found: dict[str, bytes] = {}
    taken: set[str] = set()  # as of file systems that know no capitals
    for section in report.sections:
        for block in section.blocks:
            if not isinstance(block, Figure):
                continue
            names = itertools.chain(
                [block.name], (f"{block.name}-{n}" for n in itertools.count(2))
            )
            name = next(each for each in names if each.lower() not in taken)
            taken.add(name.lower())
            found[f"report-{name}.png"] = block.png
    return found


def _replace(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        part = folder / f"report-{os.getpid()}.part.png"  # its own, if it is left over
        try:
            part.write_bytes(content)
            part.replace(folder / name)
        except OSError:
            part.unlink(missing_ok=True)
            raise
