"""The format of a pool whose path is all that is known."""

from __future__ import annotations

from pathlib import Path

from curator.errors import ConfigError
from curator.pools._files import SUFFIXES, format_of
from curator.pools._location import is_uri, names_in

__all__ = ["guess_format"]

# Files that only folders of one format have.
_MARKS = {
    "index.json": "mds",
    "state.json": "huggingface",
    "dataset_dict.json": "huggingface",
}


def guess_format(path: str | Path) -> str:
    """Returns the format of a file, a folder, a glob or a URI, going by names.

    Raises:
        ConfigError: They do not say it, or say several.
    """
    name = str(path).partition("?")[0] if is_uri(path) else str(path)
    format = format_of(name.rstrip("/"))
    if format is not None:
        return format
    found: set[str] = set()
    is_here = not is_uri(path) and Path(path).exists()
    is_glob = not is_here and bool(set("*?[") & set(name))
    try:
        names = [] if is_glob else names_in(path)
    except OSError as error:
        msg = f"{str(path)!r}: cannot be read: {error}"
        raise ConfigError(msg) from error
    if names:
        found = {_MARKS[name] for name in names if name in _MARKS}
        if not found:
            found = {of for name in names if (of := format_of(name)) is not None}
        if len(found) == 1:
            return found.pop()
    elif not is_uri(path) and not is_glob and not is_here:
        msg = f"no pool at {str(path)!r}: no such file or folder"
        raise ConfigError(msg)
    what = "Its name says none"
    if found:
        what = f"It has files of {' and of '.join(sorted(found))}"
    known = ", ".join(f"{suffixes[0]}" for suffixes in SUFFIXES.values())
    msg = (
        f"{str(path)!r}: of which format? {what}. A file, or files in a "
        f"folder or a glob, that end in {known}; a folder of MDS or of Hugging Face "
        "datasets; or say it in a configuration (CONFIG.toml, and --pool NAME of it)"
    )
    raise ConfigError(msg)
