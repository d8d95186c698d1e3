"""Writes curator/rpc/ from the .proto files of this folder; the only way to change it.

::

    python protos/generate.py           # writes
    python protos/generate.py --check   # exits 1 unless what is checked in is fresh

A .proto file's path in this folder is its package, and the path of the Python modules
made from it: nothing is rewritten after the compiler.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROTOS = Path(__file__).resolve().parent
ROOT = PROTOS.parent
OUTPUT = Path("curator/rpc")


def main() -> int:
    """Generates, or checks what is there, and returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Writes curator/rpc/ from protos/*.proto."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if out of date"
    )
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        _compile(fresh)
        stale = _differences(fresh)
        if check:
            for path in stale:
                print(f"{path} is not what protos/ generates", file=sys.stderr)
            if stale:
                print("Run: make protos", file=sys.stderr)
            return 1 if stale else 0
        for path in stale:
            _replace(ROOT / path, fresh / path)
            print(f"wrote {path}" if (fresh / path).exists() else f"removed {path}")
    return 0


def _compile(target: Path) -> None:
    """Compiles every .proto file into ``target``."""
    sources = sorted(path.relative_to(PROTOS) for path in PROTOS.rglob("*.proto"))
    if not sources:
        sys.exit(f"no .proto file in {PROTOS}")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}"),
            f"--plugin=protoc-gen-mypy={_plugin(target, 'main')}",
            f"--plugin=protoc-gen-mypy_grpc={_plugin(target, 'grpc')}",
            *(f"--python_out={target}", f"--grpc_python_out={target}"),
            *(f"--mypy_out=quiet:{target}", f"--mypy_grpc_out=quiet:{target}"),
            *map(str, sources),
        ],
        check=True,
        cwd=PROTOS,
    )


def _plugin(folder: Path, function: str) -> Path:
    """Returns a mypy-protobuf plugin that this very interpreter runs.

    The installed one need not be on the PATH, nor beside the interpreter.
    """
    path = folder / f"protoc-gen-{function}"
    path.write_text(
        f"#!{sys.executable}\nfrom mypy_protobuf.main import {function}\n{function}()\n"
    )
    path.chmod(0o700)
    return path


def _differences(fresh: Path) -> list[Path]:
    """Returns the generated files that are missing, different or without a source."""
    made = {path.relative_to(fresh) for path in fresh.rglob("*_pb2*")}
    there = {path.relative_to(ROOT) for path in (ROOT / OUTPUT).rglob("*_pb2*.py*")}
    there = {path for path in there if "__pycache__" not in path.parts}
    return sorted(
        path for path in made | there if _content(fresh / path) != _content(ROOT / path)
    )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _replace(old: Path, new: Path) -> None:
    """Makes ``old`` what ``new`` is: a copy, or gone."""
    if new.exists():
        old.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(new, old)
    else:
        old.unlink()


if __name__ == "__main__":
    sys.exit(main())
