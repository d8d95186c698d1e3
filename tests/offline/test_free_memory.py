from __future__ import annotations

from pathlib import Path

import pytest

from curator.offline._free_memory import free_memory

MEMINFO = "MemTotal: 4000 kB\nMemAvailable:    2000 kB\nSwapTotal: 9 kB\n"


@pytest.mark.parametrize(
    ("maximum", "used", "expected"),
    [
        ("max", 5_000, 2_048_000),
        ("10000", 4_000, 6_300),
        ("10000", 20_000, 300),
        ("9000000", 4_000, 2_048_000),
    ],
)
def test_the_tighter_limit_counts(
    tmp_path: Path, maximum: str, used: int, expected: int
) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "memory.max").write_text(f"{maximum}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text("active_file 7\ninactive_file 300\n")

    assert free_memory(tmp_path / "meminfo", tmp_path) == expected


def test_where_nothing_is_known_there_is_no_limit(tmp_path: Path) -> None:
    assert free_memory(tmp_path / "meminfo", tmp_path) is None


def test_this_machine_has_some() -> None:
    found = free_memory()

    assert found is None or found > 1_000_000
