from __future__ import annotations

from pathlib import Path

import pytest

from curator.errors import ConfigError, StorageError
from curator.offline._manifest import Manifest, agree

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
