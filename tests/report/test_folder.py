"""What is written, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from reports import EVIL, Page, png

from curator.errors import ConfigError, StorageError
from curator.report import Report, check_folder, write_report
from curator.report._content import Card, Figure, Gallery, Note, Section, Table


def report(*figures: str) -> Report:
    cards = [
        Card(EVIL, [(EVIL, EVIL)], [(EVIL, png())], [(EVIL, EVIL)], [EVIL]),
    ]
    blocks = [
        Note(EVIL),
        Table((EVIL,), [(EVIL,)], EVIL),
        Gallery(EVIL, cards, EVIL),
        *(Figure(name, png(), EVIL) for name in figures),
    ]
    return Report(EVIL, EVIL, [Section("part", EVIL, blocks)], {}, [])


def test_nothing_that_is_text_becomes_markup(tmp_path: Path) -> None:
    written = write_report(report("plot"), tmp_path)

    page = Page(written.page)
    assert "script" not in page.tags
    assert page.text.count(EVIL) == 18
    assert "<script" not in written.page.read_text()


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    written = write_report(report("plot"), tmp_path)

    links = Page(written.page).links
    assert sorted({link[:22] for link in links}) == ["#part", "data:image/png;base64,"]


def test_a_report_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    first = write_report(report("one", "two"), tmp_path)
    assert [path.name for path in first.figures] == ["report-one.png", "report-two.png"]

    second = write_report(report("two"), tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "report-two.png",
        "report.html",
    ]
    assert second.num_bytes == second.page.stat().st_size

    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"holds other files \(mine.txt\): choose"):
        write_report(report("two"), tmp_path)
    assert (tmp_path / "mine.txt").exists()


def test_plots_of_one_name_are_files_of_several(tmp_path: Path) -> None:
    written = write_report(report("a", "A", "a"), tmp_path)

    names = ["report-a.png", "report-A-2.png", "report-a-3.png"]
    assert [path.name for path in written.figures] == names
    assert all(path.exists() for path in written.figures)


def test_what_html_cannot_have_is_replaced(tmp_path: Path) -> None:
    """A file's name need not be UTF-8, and a column's may have anything."""
    odd = Report("\udcff", "\x00", [], {}, ["a\x1bb"])

    text = write_report(odd, tmp_path).page.read_text(encoding="utf-8")

    assert "<h1>\ufffd</h1>" in text
    assert not {"\x00", "\udcff", "\x1b"} & set(text)


def test_a_folder_is_made_and_a_file_is_none(tmp_path: Path) -> None:
    assert write_report(report(), tmp_path / "a" / "b").page.exists()

    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="as a folder: Not a directory"):
        check_folder(tmp_path / "file")


def test_a_file_that_cannot_be_replaced_leaves_no_part_of_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "report.html").mkdir()

    with pytest.raises(StorageError, match="cannot write to"):
        write_report(report("plot"), tmp_path)

    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["report-plot.png", "report.html"]
