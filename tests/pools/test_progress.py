from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
import re
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from curator import progress
from curator.pools import open_pool

LONG_AGO = 10**18  # in 2001, in nanoseconds
NUM_ROWS = 20_000


@pytest.fixture
def messages(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[[], list[str]]:
    """What is said of progress, at every step of it."""
    monkeypatch.setattr(progress, "_EVERY_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "curator.progress")

    def said() -> list[str]:
        found = [
            record.getMessage()
            for record in caplog.records
            if record.name == "curator.progress"
        ]
        caplog.clear()
        return found

    return said


def settled(path: Path) -> Path:
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def jsonl(folder: Path) -> Path:
    lines = [json.dumps({"a": i, "text": "x" * (i % 90)}) for i in range(NUM_ROWS)]
    packed = gzip.compress("\n".join(lines).encode(), 1)
    path = folder / "data.jsonl.gz"
    path.write_bytes(packed)
    return settled(path)


def table(folder: Path) -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([["a", "b"], *([i, "x" * 50] for i in range(NUM_ROWS))])
    path = folder / "data.csv"
    path.write_text(text.getvalue())
    return settled(path)


def shards(folder: Path) -> Path:
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as out:
            for i in range(300):
                member = tarfile.TarInfo(f"{shard}-{i:04}.txt")
                member.size = 700
                out.addfile(member, io.BytesIO(b"x" * 700))
        settled(folder / f"{shard}.tar")
    return folder


@pytest.mark.parametrize(
    ("format", "write", "what", "count"),
    [
        ("jsonl", jsonl, r"jsonl\.arrow of .*data\.jsonl\.gz", 1),
        ("csv", table, r"csv\.arrow of .*data\.csv", 1),
        ("webdataset", shards, r"index of .*0\.tar and 2 more", 3),
    ],
)
def test_the_opening_of_a_pool_is_told_once_for_all_of_its_files(
    tmp_path: Path,
    messages: Callable[[], list[str]],
    format: str,
    write: Callable[[Path], Path],
    what: str,
    count: int,
) -> None:
    (tmp_path / "data").mkdir()
    path = write(tmp_path / "data")
    cache = tmp_path / "state" / "f.sqlite"

    with closing(open_pool(format, path, fingerprint_cache=cache)) as pool:
        fingerprint = pool.fingerprint
    said = messages()
    hashed = [each for each in said if each.startswith("fingerprint of ")]
    made = said[: -len(hashed)]

    shares = [
        float(re.fullmatch(rf"{what}: (\d+) % of .* GB, .* MB/s, .* s left", m)[1])  # pyright: ignore[reportOptionalSubscript] - it matches
        for m in made[:-1]
    ]
    assert len(shares) >= 2
    assert shares == sorted(shares)
    assert 90 <= shares[-1] <= 100
    assert re.fullmatch(rf"{what}: \d\.\d\d GB done in \d+ s", made[-1])
    assert len(hashed) >= count + 1
    assert " 100 % of " in hashed[-2]
    with closing(open_pool(format, path, fingerprint_cache=cache)) as pool:
        assert pool.fingerprint == fingerprint
    assert messages() == []  # all of it is there


def test_what_is_there_already_does_not_count(
    tmp_path: Path, messages: Callable[[], list[str]]
) -> None:
    folder, cache = shards(tmp_path), tmp_path / "state" / "f.sqlite"
    with closing(open_pool("webdataset", folder / "0.tar", fingerprint_cache=cache)):
        pass
    messages()

    with closing(open_pool("webdataset", folder, fingerprint_cache=cache)):
        pass

    told = [each for each in messages() if each.startswith("index of ")]
    assert re.search(r"and 2 more: 9\d % of 0\.00 GB", told[-2])


def test_what_is_quick_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "curator.progress")

    pool = open_pool("jsonl", jsonl(tmp_path), fingerprint_cache=tmp_path / "f")
    with closing(pool):
        assert pool.fingerprint

    assert [r for r in caplog.records if r.name == "curator.progress"] == []
