"""What every benchmark prints and writes: a table, and one JSON format.

``{title, machine, versions, rows, targets: [{name, value, unit, goal, met}]}``
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
from pathlib import Path

__all__ = ["Report", "Target"]

_PACKAGES = ("batch-curator", "grpcio", "numpy", "protobuf", "pyarrow", "torch")


@dataclasses.dataclass(frozen=True)
class Target:
    """A figure that was to be reached.

    Attributes:
        name: What was measured.
        value: The figure.
        unit: Its unit; empty for a ratio.
        goal: What was to be reached, for a reader.
        met: Whether it was.
    """

    name: str
    value: float
    unit: str
    goal: str
    met: bool


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of one run.

    Attributes:
        title: What was measured, and under which conditions.
        rows: One dictionary per row; all with the same keys.
        targets: What was to be reached.
    """

    title: str
    rows: list[dict[str, object]]
    targets: list[Target]

    def print(self) -> None:
        """Prints the table and the targets."""
        machine_, cores = machine()["processor"], machine()["cores"]
        print(f"\n{self.title}\n{machine_}, {cores} cores\n")
        header = list(self.rows[0])
        table = [header, *([_text(row[key]) for key in header] for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(header))]
        for line in table:
            print(
                "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True))
            )
        print()
        for target in self.targets:
            print(
                f"{'met   ' if target.met else 'MISSED'}  {target.name}: "
                f"{_text(target.value)}{' ' if target.unit else ''}{target.unit} "
                f"(goal {target.goal})"
            )

    def write(self, path: Path) -> None:
        """Writes the result as JSON."""
        result = {
            "title": self.title,
            "machine": machine(),
            "versions": versions(),
            "rows": self.rows,
            "targets": [dataclasses.asdict(target) for target in self.targets],
        }
        path.write_text(json.dumps(result, indent=2) + "\n")


def machine() -> dict[str, object]:
    """Returns what the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of the packages that matter, where they are installed."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)
