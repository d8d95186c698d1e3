from __future__ import annotations

from pathlib import Path

import pytest

from curator.errors import ConfigError
from curator.pools import guess_format


@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("pairs.parquet", "parquet"),
        ("shards/*.tar", "webdataset"),
        ("lines.jsonl.zst", "jsonl"),
        ("s3://bucket/pairs.csv.gz?region=eu", "csv"),
        ("vectors.lance/", "lance"),
    ],
)
def test_a_name_says_it(path: str, format: str) -> None:
    assert guess_format(path) == format


@pytest.mark.parametrize(
    ("names", "format"),
    [
        (["a.arrow", "b.arrow", "README", "_SUCCESS"], "arrow"),
        (["index.json", "shard.00000.mds"], "mds"),
        (["state.json", "data-00000-of-00001.arrow"], "huggingface"),
        (["dataset_dict.json", "train"], "huggingface"),
    ],
)
def test_the_files_of_a_folder_say_it(
    tmp_path: Path, names: list[str], format: str
) -> None:
    for name in names:
        (tmp_path / name).touch()

    assert guess_format(tmp_path) == format


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]" / "a.parquet").touch()

    assert guess_format(tmp_path / "run[1]") == "parquet"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none", r"no pool at '.*none': no such file or folder"),
        ("", r"of which format\? It has files of arrow and of csv\."),
        ("notes.txt", r"of which format\? Its name says none\. A file, or files in a"),
        ("part-*", r"of which format\? Its name says none"),
        ("s3://bucket/part-*", r"'s3://bucket/part-\*': of which format\? Its name"),
    ],
)
def test_what_says_none_is_told(tmp_path: Path, path: str, message: str) -> None:
    for name in ("a.arrow", "b.csv", "notes.txt"):
        (tmp_path / name).touch()

    with pytest.raises(ConfigError, match=message):
        guess_format(path if "://" in path else tmp_path / path)
