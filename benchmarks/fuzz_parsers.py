"""The functions that parse a client's bytes, fuzzed by coverage (libFuzzer).

    python -m benchmarks.fuzz_parsers SECONDS FOLDER

Needs the package ``atheris``. The first byte of an input chooses the function. An
exception that is not one of ours ends the run with the input that caused it, and an
exit status that is not 0. What it writes goes to the folder.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Optional, and without types.
atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["curator"]):
    from google.protobuf.message import DecodeError

    from benchmarks.fuzz_payloads import hostile_arrow, hostile_weights
    from curator import wire
    from curator.errors import CuratorError
    from curator.models import _header, weights_to_bytes
    from curator.policies import POLICIES
    from curator.rpc.v1 import curation_pb2 as pb
    from curator.samplers import SAMPLERS

_EXPECTED = {"image.weight": ("F32", (3, 4)), "text.bias": ("F32", (3,))}
_MAX_BYTES = 4096


def main() -> None:
    """Fuzzes for so many seconds."""
    seconds, folder = int(sys.argv[1]), Path(sys.argv[2])
    parsers = _parsers(folder / "weights")
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(_examples()):
        (corpus / f"{number:04}").write_bytes(data)

    def parse(data: bytes) -> None:
        if data:
            with contextlib.suppress(CuratorError):
                parsers[data[0] % len(parsers)](data[1:])

    atheris.Setup(
        [
            *(sys.argv[0], f"-max_total_time={seconds}", f"-max_len={_MAX_BYTES}"),
            *("-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1"),
            *("-verbosity=0", f"-artifact_prefix={folder}/", str(corpus)),
        ],
        parse,
    )
    atheris.Fuzz()  # ends the process


def _parsers(path: Path) -> list[Callable[[bytes], object]]:
    """Returns the functions, in the order of the first byte."""

    def rows(data: bytes) -> None:
        wire.features_from_wire(
            wire.rows_from_bytes(data, trusted=False),
            pb.SelectStart(learner=pb.LogitParameters(logit_scale=1.0)),
        )

    def weights(data: bytes) -> None:
        path.write_bytes(data)
        _header.check_fit(path, _EXPECTED, "learner")

    def spec(data: bytes) -> None:
        try:
            message = pb.SessionSpec.FromString(data)
        except DecodeError:
            return
        wire.spec_to_proto(wire.spec_from_proto(message))

    return [rows, weights, spec, wire.ids_from_proto, wire.floats_from_proto]


def _examples() -> list[bytes]:
    """Returns inputs to begin with."""
    rng = np.random.default_rng(0)
    arrays = {
        name: np.ones(shape, np.float32) for name, (_, shape) in _EXPECTED.items()
    }
    weights = weights_to_bytes(arrays)
    specs = [
        pb.SessionSpec(
            pool="pairs",
            batch_size=8,
            policy=pb.Component(name=policy),
            sampler=pb.Component(name=sampler),
        ).SerializeToString()
        for policy in POLICIES
        for sampler in SAMPLERS
    ]
    return [
        *(b"\0" + hostile_arrow(s, 24, rng) for s in ("topk", "joint", "uds") * 50),
        *(b"\1" + hostile_weights(weights, rng) for _ in range(100)),
        b"\1" + weights,
        *(b"\2" + spec for spec in specs),
    ]


if __name__ == "__main__":
    main()
