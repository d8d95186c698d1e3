import pyarrow as pa
import pytest

from curator.errors import PoolError
from curator.pools import open_location
from curator.pools._files import common_schema, file_at, find_files, unreadable


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"data")


def found(path):
    return [file.name for file in find_files(path, "arrow")]


def test_folder_gives_its_files_sorted_by_name(tmp_path):
    touch(tmp_path, "b.arrow", "a.ipc", "a.arrow", "a-10.arrow", "a-9.arrow")

    assert found(tmp_path) == ["a-10.arrow", "a-9.arrow", "a.arrow", "a.ipc", "b.arrow"]
    assert all(file.local.is_absolute() for file in find_files(tmp_path, "arrow"))


def test_what_tools_leave_beside_the_data_is_ignored(tmp_path):
    touch(
        tmp_path,
        "a.arrow",
        ".a.arrow",
        "_b.arrow",
        "_SUCCESS",
        "README.md",
        "d/c.arrow",
    )
    (tmp_path / "folder.arrow").mkdir()

    assert found(tmp_path) == ["a.arrow"]
    assert found(str(tmp_path / "*.arrow")) == ["a.arrow"]


def test_one_file_is_taken_whatever_its_name(tmp_path):
    touch(tmp_path, "_[data]*")

    assert found(tmp_path / "_[data]*") == ["_[data]*"]


def test_glob_gives_any_names_and_any_depth(tmp_path):
    touch(tmp_path, "part-1", "part-0", "x/b.arrow", "a.arrow")

    assert found(tmp_path / "part-*") == ["part-0", "part-1"]
    assert found(tmp_path / "**" / "*.arrow") == ["a.arrow", "b.arrow"]


HIDDEN = [
    "a/1.arrow",
    "a/_2.arrow",
    "a/_tmp/3.arrow",
    "_temporary/0/4.arrow",
    ".hid/5.arrow",
    "b/c/6.arrow",
    "b/.7.arrow",
]


@pytest.fixture(params=["local", "file", "memory"])
def hidden_places(request, tmp_path):
    """A folder with what tools leave in it, on some file system."""
    if request.param == "memory":
        system, root = open_location(f"memory://{tmp_path.name}")
        for name in HIDDEN:
            system.create_dir(f"{root}/{name}".rpartition("/")[0])
            with system.open_output_stream(f"{root}/{name}") as out:
                out.write(b"data")
        return f"memory://{tmp_path.name}"
    touch(tmp_path / "_data", *HIDDEN)
    prefix = "file://" if request.param == "file" else ""
    return f"{prefix}{tmp_path}/_data"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("**/*.arrow", "16"),
        ("**", "16"),
        ("**/**/*.arrow", "16"),
        ("*/*.arrow", "1"),
        ("*/*/*.arrow", "6"),
        ("*/_tmp/*.arrow", "3"),
        ("**/_*/*.arrow", "3"),
        ("**/_*/**/*.arrow", "43"),
        ("_temporary/**/*.arrow", "4"),
        (".hid/[0-9]*", "5"),
        ("[.]hid/*", ""),
        ("**/_2.arrow", "2"),
        ("**/.*.arrow", "7"),
    ],
)
def test_wildcards_begin_with_no_dot_or_underscore(hidden_places, pattern, names):
    if not names:
        with pytest.raises(PoolError, match="no file matches it as a glob"):
            found(f"{hidden_places}/{pattern}")
    else:
        ids = [name.strip("._")[0] for name in found(f"{hidden_places}/{pattern}")]
        assert ids == [*names]


@pytest.mark.parametrize(
    "path", ["data", "data/*.arrow", "**/*.arrow", "data/b.arrow", "*/b.arrow"]
)
@pytest.mark.parametrize("target", ["gone.arrow", "b.arrow"])
def test_link_that_leads_nowhere_is_named(tmp_path, path, target):
    touch(tmp_path, "data/a.arrow", "data/c.arrow")
    (tmp_path / "data" / "b.arrow").symlink_to(target)

    message = rf"data/b\.arrow: a link to '{target}', where nothing is: bring back"
    with pytest.raises(PoolError, match=message):
        found(tmp_path / path)


def test_links_are_followed_and_those_of_other_names_do_not_matter(tmp_path):
    touch(tmp_path, "data/a.arrow", "elsewhere/x")
    (tmp_path / "data" / "b.arrow").symlink_to("../elsewhere/x")
    for name in ("_c.arrow", ".d.arrow", "README"):
        (tmp_path / "data" / name).symlink_to("gone")

    assert found(tmp_path / "data") == ["a.arrow", "b.arrow"]
    assert found(tmp_path / "data" / "*.arrow") == ["a.arrow", "b.arrow"]


def test_relative_paths_are_those_of_the_current_folder(tmp_path, monkeypatch):
    touch(tmp_path, "data/a.arrow")
    monkeypatch.chdir(tmp_path)

    files = find_files("data", "arrow")

    assert [file.local for file in files] == [tmp_path / "data" / "a.arrow"]
    assert [str(file) for file in files] == [str(tmp_path / "data" / "a.arrow")]


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(PoolError, match=r"absent: no such file or folder, and no file"):
        find_files(tmp_path / "absent", "arrow")
    with pytest.raises(PoolError, match=r"\*\.arrow: no such file or folder"):
        find_files(tmp_path / "*.arrow", "arrow")


def test_folder_without_such_files_says_what_it_has(tmp_path):
    with pytest.raises(
        PoolError, match=r"no files that end in \.arrow, \.ipc, \.feather in this"
    ):
        find_files(tmp_path, "arrow")
    touch(tmp_path, "a.csv", "b.csv")
    message = r"it has a\.csv, b\.csv\. Files of format csv are there\. A glob takes"
    with pytest.raises(PoolError, match=message):
        find_files(tmp_path, "arrow")


def test_unreadable_file_is_described(tmp_path):
    touch(tmp_path, "a.arrow")

    file = file_at(tmp_path / "a.arrow")

    error = unreadable(file, "an Arrow file", ValueError("no magic"))
    (tmp_path / "a.arrow").unlink()
    missing = unreadable(file, "an Arrow file", OSError("gone"))

    assert str(error).endswith(
        "a.arrow: not an Arrow file, or damaged: no magic. It starts with b'data'"
    )
    assert "a.arrow: cannot be read: " in str(missing)


def some_files(folder, num_files):
    touch(folder, *(f"{i}.arrow" for i in range(num_files)))
    return [file_at(folder / f"{i}.arrow") for i in range(num_files)]


def schemas_message(tmp_path, *schemas):
    files = some_files(tmp_path, len(schemas))
    with pytest.raises(PoolError) as caught:
        common_schema(files, [pa.schema(schema) for schema in schemas])
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_schemas_that_differ_are_described(tmp_path):
    a, b = ("a", pa.int64()), ("b", pa.string())
    required = pa.field("b", pa.string(), nullable=False)

    prefix = "the files of a pool need the same columns: "
    for schemas, message in (
        (([a, b], [a, b], [a]), "0.arrow has 'b', 2.arrow has not"),
        (([a], [a, b]), "1.arrow has 'b', 0.arrow has not"),
        (([a], [("a", pa.int8())]), "'a' is int64 in 0.arrow and int8 in 1.arrow"),
        (([b], [required]), "'b' is string in 0.arrow and string not null in 1.arrow"),
        (
            ([a, b], [b, a]),
            "0.arrow has them in the order a, b, 1.arrow in the order b, a",
        ),
    ):
        assert schemas_message(tmp_path, *schemas) == prefix + message


def test_two_columns_of_one_name_are_refused_with_the_file(tmp_path):
    a = ("a", pa.int64())

    message = schemas_message(tmp_path, [a], [a, a])

    assert message == "1.arrow: two columns of one name: a; rename one"


def test_metadata_and_dictionaries_may_differ(tmp_path):
    plain = pa.schema([("a", pa.string())], metadata={"pandas": "1"})
    encoded = pa.schema([("a", pa.dictionary(pa.int8(), pa.string()))])

    schema = common_schema(some_files(tmp_path, 2), [plain, encoded])

    assert schema.equals(pa.schema([("a", pa.string())]), check_metadata=True)
