import io
import shutil
import subprocess
import tarfile
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from curator.errors import PoolChangedError, PoolError
from curator.pools import open_pool


def write(path, *members, format=tarfile.PAX_FORMAT, mode="w"):
    """Writes a tar file of (name, data), or of whole members."""
    with cast("Any", tarfile).open(path, mode, format=format) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def pool_of(tmp_path):
    """Returns a function of the members of a shard that opens its pool."""

    def make(*members, **options):
        path = write(tmp_path / "a.tar", *members, **options)
        return open_pool("webdataset", path, fingerprint_cache=tmp_path / "s" / "f")

    return make


def link(name, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "elsewhere"
    return info


GOOD = [("a.jpg", b"1"), ("a.cls", b"7"), ("b.jpg", b"22"), ("b.cls", b"8\n")]


@pytest.mark.parametrize(
    "format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
)
def test_members_of_one_name_are_a_sample(pool_of, format):
    long = f"{'folder/' * 13}{'x' * 80}"
    pool = pool_of(
        ("./x.y/a.left.JPG", b"1"),
        ("./x.y/a.txt", "é".encode()),
        ("./x.y/a.json", b'{"a": 1}'),
        (f"{long}.left.jpg", b""),
        (f"{long}.txt", b"t" * 2000),
        (f"{long}.json", b"{}"),
        format=format,
    )

    assert dict(zip(pool.schema.names, pool.schema.types, strict=True)) == {
        "__key__": pa.string(),
        "json": pa.string(),
        "left.jpg": pa.binary(),
        "txt": pa.string(),
    }
    assert pool.take(np.array([1, 0])).to_pylist() == [
        {"__key__": long, "json": "{}", "left.jpg": b"", "txt": "t" * 2000},
        {"__key__": "./x.y/a", "json": '{"a": 1}', "left.jpg": b"1", "txt": "é"},
    ]


def test_folders_and_hidden_files_are_left_out(pool_of):
    pool = pool_of(
        link("folder", tarfile.DIRTYPE), ("folder/._a.jpg", b"mac"), *GOOD, (".x", b"")
    )

    assert pool.take(np.array([0, 1]), ["cls"]).to_pylist() == [{"cls": 7}, {"cls": 8}]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([*GOOD, ("b.jpg", b"")], r"a\.tar: sample 'b' has two members 'jpg'"),
        ([*GOOD, ("a.txt", b"")], r"a\.tar: two samples 'a', or the members of one do"),
        ([*GOOD, ("c.jpg", b"")], r"a\.tar: sample 'a' has 'cls', and 'c' has not"),
        ([*GOOD, ("c.x", b"")], r"sample 'a' has 'cls', and 'c' has not"),
        (
            [("a.x", b""), ("b.x", b""), ("b.y", b"")],
            r"sample 'b' has 'y', and 'a' has",
        ),
        (
            [*GOOD, link("c.jpg")],
            r"a\.tar: member 'c\.jpg' is no plain file .*type is b'2",
        ),
        ([*GOOD, ("README", b"")], r"a\.tar: member 'README' belongs to no sample"),
        ([], r"a\.tar: a shard has at least one sample"),
    ],
)
def test_wrong_member_is_named(pool_of, members, message):
    with pytest.raises(PoolError, match=message):
        pool_of(*members)


def test_member_that_is_no_number_or_text_is_named(pool_of):
    for cell in (b"dog", b"9223372036854775808", b"-1" + b"0" * 5000):
        pool = pool_of(*GOOD, ("c.jpg", b""), ("c.cls", cell))
        start = cell.decode()[:20]
        with pytest.raises(
            PoolError,
            match=rf"a\.tar: sample 'c': member 'cls' has b'{start}', which is no int",
        ):
            pool.take(np.array([0, 2]))
        assert pool.take(np.array([2]), ["jpg"]).to_pylist() == [{"jpg": b""}]

    pool = pool_of(("a.txt", b"\xff"))
    with pytest.raises(
        PoolError, match=r"sample 'a': member 'txt' has b'\\xff', which is no str"
    ):
        pool.take(np.array([0]))


def test_shards_with_other_members_are_told(tmp_path):
    write(tmp_path / "a.tar", *GOOD)
    write(tmp_path / "b.tar", ("a.jpg", b""))

    with pytest.raises(PoolError, match=r"a\.tar has 'cls', .*b\.tar has not"):
        open_pool("webdataset", tmp_path, fingerprint_cache=tmp_path / "s" / "f")


def test_one_key_may_be_in_two_shards(tmp_path):
    for name in ("a.tar", "b.tar"):
        write(tmp_path / name, *GOOD)

    pool = open_pool("webdataset", tmp_path, fingerprint_cache=tmp_path / "s" / "f")

    assert pool.take(np.arange(4), ["cls"]).column(0).to_pylist() == [7, 8, 7, 8]


def test_shard_that_is_damaged_is_told(pool_of, tmp_path):
    file = tmp_path / "a.tar"
    for damage, message in (
        (lambda data: b"", "not a tar file, or damaged: empty file"),
        (lambda data: b"x" * 2000, "not a tar file, or damaged"),
        (lambda data: data[:1100], "cut short: it ends at byte 1100 without the empty"),
        (lambda data: data[:1536], r"cut short: member 'a\.cls' ends at byte 1537"),
        (lambda data: data[:1024] + b"?" * 512 + data[1536:], "no header at byte 1024"),
    ):
        write(file, *GOOD, format=tarfile.USTAR_FORMAT)
        file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(PoolError, match=rf"a\.tar: .*{message}"):
            open_pool("webdataset", file, fingerprint_cache=tmp_path / "s" / "f")


@pytest.mark.parametrize(
    "format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
)
def test_shard_that_is_cut_short_anywhere_is_told(pool_of, tmp_path, format):
    long = [(f"{'y' * 60}/{'y' * 60}.{member}", b"long") for member in ("jpg", "cls")]
    pool_of(*GOOD, *long, format=format)
    whole = (tmp_path / "a.tar").read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512

    for size in range(512, end + 512, 256):
        (tmp_path / "a.tar").write_bytes(whole[:size])
        with pytest.raises(
            PoolError, match=r"a\.tar: .*(cut short|unexpected end|damag)"
        ):
            open_pool(
                "webdataset", tmp_path / "a.tar", fingerprint_cache=tmp_path / "f"
            )


def test_one_empty_block_ends_a_shard(pool_of, tmp_path):
    pool_of(*GOOD, format=tarfile.USTAR_FORMAT)
    path = tmp_path / "a.tar"
    path.write_bytes(path.read_bytes()[: 4 * 1024 + 512])

    assert open_pool("webdataset", path, fingerprint_cache=tmp_path / "f").num_examples


@pytest.mark.skipif(shutil.which("tar") is None, reason="has no tar")
@pytest.mark.parametrize("blocks", ["1", "20"])
def test_what_tar_writes_is_read(tmp_path, blocks):
    for name, data in GOOD:
        (tmp_path / name).write_bytes(data)
    names = [name for name, _ in GOOD]
    subprocess.run(
        ["tar", "-b", blocks, "-cf", "x.tar", *names], cwd=tmp_path, check=True
    )

    pool = open_pool("webdataset", tmp_path / "x.tar", fingerprint_cache=tmp_path / "f")

    assert pool.take(np.array([1]), ["jpg"]).to_pylist() == [{"jpg": b"22"}]


def test_packed_shard_is_told_to_be_unpacked(pool_of):
    with pytest.raises(PoolError, match=r"not a tar file.* Unpack a packed one first"):
        pool_of(*GOOD, mode="w:gz")


def test_shard_that_is_replaced_or_gone_is_told(pool_of, tmp_path):
    pool = pool_of(*GOOD)
    write(
        tmp_path / "a.tar",
        *GOOD,
        ("c.jpg", b"3"),
        ("c.cls", b"9"),
        ("d.jpg", b"3" * 9999),
    )

    with pytest.raises(
        PoolChangedError, match=r"a\.tar: changed since the pool was op"
    ):
        pool.take(np.array([0]))
    (tmp_path / "a.tar").unlink()
    with pytest.raises(PoolError, match=r"a\.tar: cannot be read: .*No such file"):
        pool.take(np.array([0]))
