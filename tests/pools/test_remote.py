"""Pools on another file system: a real S3 server, and one of fsspec."""

import logging
import threading
import warnings

import numpy as np
import pool_formats
import pool_tables
import pytest
from pyarrow import fs

from curator.config import parse_config
from curator.errors import ConfigError, PoolChangedError, PoolError
from curator.pools import guess_format, open_location, open_pool

TABLE = pool_formats.table(30)
BUCKET = "bucket"
KINDS = sorted({*pool_formats.KINDS} - {"lance"})


@pytest.fixture(scope="module")
def server():
    """The address of an S3 server on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what moto and botocore use is their business
        from moto.server import ThreadedMotoServer
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"{host}:{port}"
    moto.stop()


@pytest.fixture
def s3(server, monkeypatch):
    """An empty bucket; how to reach it is in the environment, as usual."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server}")
    system, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}?allow_bucket_creation=true")
    system.create_dir(BUCKET)
    system.delete_dir_contents(BUCKET)
    return system


def upload(system, folder, name):
    fs.copy_files(
        str(folder),
        f"{BUCKET}/{name}",
        source_filesystem=fs.LocalFileSystem(),
        destination_filesystem=system,
    )
    return f"s3://{BUCKET}/{name}"


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_fingerprint_are_those_of_the_local_files(kind, s3, tmp_path):
    format, _, _, columns = pool_formats.KINDS[kind]
    local = pool_formats.write(kind, tmp_path / "data", TABLE)
    uri = upload(s3, local, "some/data")
    cache = tmp_path / "state" / "f.sqlite"

    pool = open_pool(format, uri, fingerprint_cache=cache)

    ids = np.array([29, 0, 3, 3, 17])
    taken = pool.take(ids, columns)
    assert taken.to_pylist() == TABLE.select(columns).take(ids).to_pylist()
    assert pool.fingerprint == open_pool(format, local).fingerprint
    pool.close()
    again = open_pool(format, uri, fingerprint_cache=cache)
    assert again.take(ids, columns).equals(taken)
    again.close()


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_a_folder_is_of_the_format_of_its_files_and_errors_name_them(
    s3, tmp_path, name
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"a.{name}").write_text('x\n"')
    uri = upload(s3, tmp_path / "data", "data")

    assert guess_format(uri) == name
    with pytest.raises(PoolError, match=rf"^{uri}/a\.{name}: .*(line 1|Row #2)"):
        open_pool(name, uri, fingerprint_cache=tmp_path / "state" / "f.sqlite")


def test_what_is_no_uri_is_told_by_whoever_reads_it(s3):
    with pytest.raises(ConfigError, match=r"Cannot parse URI.*fsspec: "):
        open_pool("parquet", f"s3://{BUCKET}/a b")


def test_lance_reads_by_itself_what_lies_elsewhere(s3, server, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    local = pool_formats.write_lance(tmp_path / "data.lance", TABLE)
    uri = upload(s3, local, "data.lance")

    pool = open_pool("lance", uri, fingerprint_cache=tmp_path / "f")

    assert pool.take(np.array([7])).to_pylist() == TABLE.slice(7, 1).to_pylist()
    assert pool.fingerprint == open_pool("lance", local).fingerprint


def test_globs_folders_and_files_are_found(s3, tmp_path):
    for name in ("a.parquet", "b.parquet", "_c.parquet", "x/d.parquet", "e.txt"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        pool_tables.write_parquet(tmp_path / "data" / name, TABLE)
    uri = upload(s3, tmp_path / "data", "data")

    def files(path):
        return open_pool("parquet", path).num_examples // TABLE.num_rows

    assert files(uri) == 2
    assert files(f"{uri}/") == 2
    assert files(f"{uri}/*.parquet") == 2
    assert files(f"{uri}/[b-z].*") == 2
    assert files(f"{uri}/**/*.parquet") == 3
    assert files(f"{uri}/*/d.parquet") == 1
    assert files(f"{uri}/e.txt") == 1
    for absent in (f"{uri}/absent", f"{uri}/absent*", f"{uri}/a/*.parquet"):
        with pytest.raises(PoolError, match=r"s3://bucket/data/a.*: no such file or f"):
            files(absent)
    with pytest.raises(
        PoolError, match=r"s3://bucket/data/x: no files that end in .ar"
    ):
        open_pool("arrow", f"{uri}/x")


def test_options_of_a_uri_are_kept_with_a_glob(s3, server, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    upload(s3, pool_formats.write("parquet", tmp_path / "data", TABLE), "data")
    options = f"endpoint_override=http://{server}&region=us-east-1"

    pool = open_pool("parquet", f"s3://{BUCKET}/data/*.parquet?{options}")

    assert pool.num_examples == TABLE.num_rows


def test_copy_is_made_anew_when_the_object_changes(s3, tmp_path):
    first = pool_formats.write("arrow", tmp_path / "first", TABLE)
    other = pool_formats.write("arrow", tmp_path / "other", TABLE.slice(5))
    cache = tmp_path / "state" / "f.sqlite"
    uri = upload(s3, first, "data")
    before = open_pool("arrow", uri, fingerprint_cache=cache)

    s3.delete_dir_contents(f"{BUCKET}/data")
    upload(s3, other, "data")
    after = open_pool("arrow", uri, fingerprint_cache=cache)

    assert after.num_examples == TABLE.num_rows - 5
    assert after.fingerprint != before.fingerprint
    assert before.take(np.array([0])).to_pylist() == TABLE.slice(0, 1).to_pylist()


def test_object_that_changes_before_it_is_read_is_told(s3, tmp_path):
    path = tmp_path / "data"
    path.mkdir()
    pool_formats.write_tar(path / "a.tar", TABLE)
    uri = upload(s3, path, "data")
    pool = open_pool("webdataset", uri, fingerprint_cache=tmp_path / "s" / "f")
    pool_formats.write_tar(path / "a.tar", TABLE.slice(9))
    upload(s3, path, "data")

    with pytest.raises(
        PoolChangedError, match=r"s3://bucket/data/a\.tar: changed since"
    ):
        pool.take(np.array([0]))


def test_threads_read_one_object_together(s3, tmp_path):
    path = pool_formats.write("webdataset", tmp_path / "data", TABLE)
    pool = open_pool(
        "webdataset", upload(s3, path, "d"), fingerprint_cache=tmp_path / "f"
    )
    found = []

    def take(seed):
        ids = np.random.default_rng(seed).integers(0, 30, 20)
        rows = pool.take(ids, ["txt", "jpg"])
        found.append(
            rows.to_pylist() == TABLE.select(["txt", "jpg"]).take(ids).to_pylist()
        )

    threads = [threading.Thread(target=take, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()

    assert found == [True] * 4


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl-gz", "webdataset", "mds"])
def test_file_systems_of_fsspec_are_read(kind, tmp_path):
    format, _, _, columns = pool_formats.KINDS[kind]
    local = pool_formats.write(kind, tmp_path / "data", TABLE)
    system, root = open_location(f"memory://{kind}")
    fs.copy_files(
        str(local),
        root,
        source_filesystem=fs.LocalFileSystem(),
        destination_filesystem=system,
    )

    pool = open_pool(format, f"memory://{kind}", fingerprint_cache=tmp_path / "s" / "f")

    taken = pool.take(np.array([7, 3]), columns)
    assert taken.to_pylist() == TABLE.select(columns).take([7, 3]).to_pylist()
    assert pool.fingerprint == open_pool(format, local).fingerprint


def test_file_uri_is_a_local_path(tmp_path):
    pool_formats.write("parquet", tmp_path / "data", TABLE)

    whole = open_pool("parquet", f"file://{tmp_path}/data")
    glob = open_pool("parquet", f"file://{tmp_path}/data/*.parquet")

    assert whole.num_examples == glob.num_examples == TABLE.num_rows


def test_unknown_file_system_is_told():
    with pytest.raises(ConfigError, match=r"cannot open 'ftps3://a/b'"):
        open_pool("parquet", "ftps3://a/b")


def test_path_of_another_file_system_is_not_made_relative(tmp_path):
    pools = {"p": {"format": "parquet", "path": "s3://bucket/data/*.parquet"}}

    config = parse_config({"pools": pools}, base=tmp_path)

    assert config.pools["p"].path == "s3://bucket/data/*.parquet"
