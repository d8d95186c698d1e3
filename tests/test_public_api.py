"""What each module says it offers is there, and is said once."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections import Counter
from pathlib import Path

import pytest

import curator

FOLDER = Path(curator.__path__[0])


def modules() -> list[str]:
    """Every hand-written module; the commands' entry point ends the process."""
    found = (info.name for info in pkgutil.walk_packages(curator.__path__, "curator."))
    return [
        "curator",
        *(
            name
            for name in found
            if not name.startswith("curator.rpc") and not name.endswith(".__main__")
        ),
    ]


def test_every_folder_is_a_regular_package() -> None:
    folders = {path.parent for path in FOLDER.rglob("*.py")}

    # Walking the packages, import-linter's included, silently passes over the others.
    assert [path for path in folders if not (path / "__init__.py").exists()] == []


@pytest.mark.parametrize("name", modules())
def test_all_names_what_is_there(name: str) -> None:
    module = importlib.import_module(name)
    offered: list[str] = getattr(module, "__all__", [])

    # That the list is sorted is ruff's to check (RUF022).
    assert [public for public in offered if not hasattr(module, public)] == []
    assert [public for public, times in Counter(offered).items() if times > 1] == []


@pytest.mark.parametrize("name", modules())
def test_what_is_private_to_a_package_stays_there(name: str) -> None:
    package = name.split(".")[:2]
    source = importlib.util.find_spec(name)
    assert source is not None
    assert source.origin is not None
    tree = ast.parse(Path(source.origin).read_text())

    imported = [
        node.module.split(".")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
    ]

    private = [
        ".".join(parts)
        for parts in imported
        if parts[0] == "curator"
        and parts[:2] != package
        and any(part.startswith("_") and part != "__main__" for part in parts)
    ]
    assert private == []


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = curator.nonsense
