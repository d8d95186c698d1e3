from __future__ import annotations

from pathlib import Path

import pytest

from curator.errors import ConfigError, StorageError
from curator.offline._files import claimed, creating, replacing
from curator.offline._manifest import Manifest, agree
from curator.offline._rows._whole import whole_folder

MANIFEST = Manifest(
    pool_fingerprint="p",
    model_fingerprint="m",
    model={"kind": "classifier", "args": {"seed": 1}},
    outputs=["loss"],
    columns=[],
    where=None,
    pool_num_examples=130,
    num_examples=130,
    shard_size=64,
    versions={"batch-curator": "1"},
)


def test_a_folder_is_claimed_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with claimed(folder):
        message = r"another process is writing scores to '.*/a/b': wait for it"
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


def test_shards_cover_every_example_once() -> None:
    spans = [range(*MANIFEST.span(n)) for n in range(MANIFEST.num_shards)]

    assert [i for span in spans for i in span] == list(range(130))
    assert [MANIFEST.size(n) for n in range(MANIFEST.num_shards)] == [64, 64, 2]


def test_a_manifest_agrees_with_itself(tmp_path: Path) -> None:
    agree(tmp_path, MANIFEST)
    written = (tmp_path / "_manifest.json").read_text(encoding="utf-8")

    agree(tmp_path, MANIFEST)
    assert written == MANIFEST.to_json()


def test_a_folder_of_other_files_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(ConfigError, match=r"is not empty .* \(thesis.tex ...\): choos"):
        agree(tmp_path, MANIFEST)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_crash_left_of_the_first_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "._manifest.json.part").write_bytes(b'{"form')

    agree(tmp_path, MANIFEST)

    assert [path.name for path in tmp_path.iterdir()] == ["_manifest.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_a_damaged_manifest_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "_manifest.json").write_text(text)

    with pytest.raises(
        StorageError, match=r"_manifest.json' is damaged \(.*\): delete"
    ):
        agree(tmp_path, MANIFEST)


def test_a_manifest_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "_manifest.json").mkdir()

    with pytest.raises(StorageError, match=r"cannot read '.*_manifest.json': Is a dir"):
        agree(tmp_path, MANIFEST)
