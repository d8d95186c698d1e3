"""The wheel holds the package, all of it, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "curator")
IGNORE = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def wheel(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> zipfile.ZipFile:
    """The wheel of these sources; of a copy, as setuptools builds beside them."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = repository / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=IGNORE)
        else:
            shutil.copyfile(source, copy / name)
    # What a checkout has beside the package, and a wheel must not.
    for folder in ("protos", "tests", "typings", "workers"):
        (copy / folder).mkdir()
        (copy / folder / "module.py").touch()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [*command, "--no-build-isolation", "--wheel-dir", str(copy / "dist"), "."],
        check=True,
        cwd=copy,
    )
    (path,) = (copy / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_wheel_installs_one_name(wheel: zipfile.ZipFile) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"curator"}
    assert len(tops) == 2


@pytest.mark.slow
def test_wheel_has_every_module_and_the_type_marker(
    wheel: zipfile.ZipFile, repository: Path
) -> None:
    sources = {
        path.relative_to(repository).as_posix()
        for path in (repository / "curator").rglob("*.py")
    }

    assert sources - set(wheel.namelist()) == set()
    assert "curator/py.typed" in wheel.namelist()


@pytest.mark.slow
def test_wheel_has_one_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.split("/")[0] for name in wheel.namelist() if "dist-info" in name}

    entry_points = wheel.read(f"{info}/entry_points.txt").decode()

    assert entry_points.split() == [
        "[console_scripts]",
        "curator",
        "=",
        "curator.cli:main",
    ]
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
