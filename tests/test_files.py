from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from curator.errors import ConfigError, StorageError
from curator.files import claimed, creating, replacing
from curator.offline._rows._whole import whole_folder


def test_a_folder_is_claimed_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with claimed(folder):
        message = r"another process is writing to '.*/a/b': wait for it"
        with pytest.raises(StorageError, match=message), claimed(folder):
            pass

    with claimed(folder):
        assert list(folder.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(StorageError, match=r"cannot use '.*/file' as a folder: it is a"),
        claimed(tmp_path / "file"),
    ):
        pass


def test_a_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"

    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"new")]


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    message = r"cannot write '.*/none/file': No such file or directory"
    with (
        pytest.raises(StorageError, match=message),
        replacing(tmp_path / "none" / "file"),
    ):
        pass


def test_of_two_that_write_one_file_the_second_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    message = r"another process is writing '.*/file': wait for it"

    with creating(path) as file:
        with pytest.raises(StorageError, match=message), creating(path):
            pytest.fail("both write it")
        file.write(b"first")

    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [
        ("file", b"first")
    ]


def test_of_two_that_write_one_folder_the_second_is_told(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    message = r"another process is writing '.*/folder': wait for it"

    with whole_folder(path) as part:
        (part / "a").write_bytes(b"first")
        with pytest.raises(StorageError, match=message), whole_folder(path):
            pytest.fail("both write it")

    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert (path / "a").read_bytes() == b"first"


def test_what_is_there_when_writing_begins_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()

    for new in (creating(tmp_path / "file"), whole_folder(tmp_path / "folder")):
        with pytest.raises(ConfigError, match="is there already: choose"), new:
            pytest.fail("written over")

    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_what_a_crash_left_of_a_folder_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".folder.part"
    (left / "deep").mkdir(parents=True)
    (left / "file").touch()

    with whole_folder(tmp_path / "folder") as part:
        (part / "new").touch()

    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["new"]


def test_a_part_renamed_before_it_is_locked_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, part = tmp_path / "file", tmp_path / ".file.part"
    lock = fcntl.flock

    def after_another(descriptor: int, how: int) -> None:
        if not path.exists():  # the other ends between our opening and our locking
            part.write_bytes(b"the other's")
            part.rename(path)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", after_another)
    with pytest.raises(ConfigError, match="is there already"), creating(path):
        pytest.fail("written over")

    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [
        ("file", b"the other's")
    ]
