import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from curator.errors import PoolChangedError, PoolError
from curator.pools import open_pool
from curator.pools._derived import cache_folder, derive
from curator.pools._files import file_at
from curator.progress import Progress

LONG_AGO = 10**18  # in 2001, in nanoseconds


@pytest.fixture
def source(tmp_path):
    """A file that did not change for long."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


class Upper:
    """Writes a file in capitals, and counts how often it did."""

    def __init__(self, source):
        self.source = source
        self.times = 0

    def __call__(self, target: Path, progress: Progress) -> None:
        self.times += 1
        target.write_bytes(self.source.read_bytes().upper())


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_it_is_made_once_for_as_long_as_the_file_stays(source, tmp_path):
    build = Upper(source)

    paths = {derive(tmp_path / "c", "upper", [file_at(source)], build) for _ in "aaa"}

    assert build.times == 1
    assert [path.read_bytes() for path in paths] == [b'{"A": 1}\n']
    assert names(tmp_path / "c") == [path.name for path in paths]


def test_it_is_made_anew_when_the_file_changes(source, tmp_path):
    build = Upper(source)
    before = derive(tmp_path / "c", "upper", [file_at(source)], build)
    source.write_bytes(b"other\n\n\n\n")
    os.utime(source, ns=(LONG_AGO, LONG_AGO))

    after = derive(tmp_path / "c", "upper", [file_at(source)], build)

    assert after != before
    assert after.read_bytes() == b"OTHER\n\n\n\n"
    assert before.read_bytes() == b'{"A": 1}\n'  # somebody may be opening it


def test_what_nothing_needs_is_deleted_later(source, tmp_path):
    build = Upper(source)
    old = derive(tmp_path / "c", "upper", [file_at(source)], build)
    other = derive(tmp_path / "c", "other", [file_at(source)], build)
    for path in (old, other):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    source.write_bytes(b"x")

    new = derive(tmp_path / "c", "upper", [file_at(source)], build)

    assert names(tmp_path / "c") == sorted([new.name, other.name])


def test_what_was_made_of_fewer_files_is_deleted_later(source, tmp_path):
    build, folder = Upper(source), tmp_path / "c"
    more = [file_at(source), file_at(Path(__file__))]
    old = derive(folder, "upper", more[:1], build, place="here")
    other = derive(folder, "upper", more[:1], build, place="elsewhere")
    for path in (old, other):
        os.utime(path, ns=(LONG_AGO, LONG_AGO))

    new = derive(folder, "upper", more, build, place="here")

    assert names(folder) == sorted([new.name, other.name])
    assert derive(folder, "upper", more, build, place="here") == new


def test_file_written_just_now_is_not_trusted(source, tmp_path):
    build = Upper(source)
    os.utime(source)

    one = derive(tmp_path / "c", "upper", [file_at(source)], build)
    two = derive(tmp_path / "c", "upper", [file_at(source)], build)

    assert one != two
    assert build.times == 2


def test_failure_leaves_nothing(source, tmp_path):
    def fail(target: Path, progress: Progress) -> None:
        target.write_bytes(b"half")
        msg = "broken"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="broken"):
        derive(tmp_path / "c", "upper", [file_at(source)], fail)

    assert names(tmp_path / "c") == []


def test_what_was_being_made_when_the_process_was_killed_is_deleted(source, tmp_path):
    code = f"""
import os
from pathlib import Path
from curator.pools._derived import derive
from curator.pools._files import file_at

def killed(target, progress):
    target.write_bytes(b"half")
    os._exit(1)

derive(Path({str(tmp_path / "c")!r}), "upper", [file_at(Path({str(source)!r}))], killed)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = [p for p in (tmp_path / "c").glob(".upper*") if p.suffix != ".lock"]

    derive(tmp_path / "c", "upper", [file_at(source)], Upper(source))

    assert not left.exists()


def test_file_that_changes_meanwhile_is_told(source, tmp_path):
    def change(target: Path, progress: Progress) -> None:
        target.write_bytes(b"done")
        source.write_bytes(b"more and more")

    with pytest.raises(PoolChangedError, match=r"data\.jsonl: changed while the pool"):
        derive(tmp_path / "c", "upper", [file_at(source)], change)
    assert names(tmp_path / "c") == []


def test_folder_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "c").write_bytes(b"a file")

    with pytest.raises(PoolError, match=r"upper cannot be made in .*/c: .*state_dir"):
        derive(tmp_path / "c", "upper", [file_at(source)], Upper(source))


def test_one_makes_it_and_the_others_wait(source, tmp_path):
    started, going = threading.Event(), threading.Event()
    build, paths = Upper(source), []

    def slowly(target: Path, progress: Progress) -> None:
        started.set()
        going.wait(60)
        build(target, progress)

    def make():
        paths.append(derive(tmp_path / "c", "slow", [file_at(source)], slowly))

    # The lock is of an open file, so that threads are to it as processes are.
    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(60)
    going.set()
    for thread in threads:
        thread.join(60)

    assert build.times == 1
    assert len(paths) == 3
    assert len({*paths}) == 1


def test_what_was_made_is_logged_with_its_size(source, tmp_path, caplog):
    caplog.set_level(logging.INFO, "curator.pools")

    open_pool("jsonl", source, fingerprint_cache=tmp_path / "state" / "f.sqlite")

    assert "jsonl.arrow of " in caplog.text
    assert f"MB in {tmp_path}/state/pools/jsonl.arrow-" in caplog.text


def test_it_lies_beside_the_digests_or_in_the_users_folder(tmp_path, monkeypatch):
    assert cache_folder(tmp_path / "s" / "f.sqlite") == tmp_path / "s" / "pools"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "batch-curator" / "pools"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder(None) == Path.home() / ".cache" / "batch-curator" / "pools"
