"""The sections of a report on a subset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from curator.offline import Subset
from curator.report import _figures as figures
from curator.report._compare import Compared
from curator.report._content import Block, Figure, Gallery, Note, Section, Table
from curator.report._examples import NO_POOL, Examples
from curator.report._groups import Groups
from curator.report._labels import labels_of
from curator.report._numbers import Number
from curator.report._options import Options
from curator.report._statistics import Histogram, Kept, Survey
from curator.report._words import axis_label, number, one_line, share, slug

__all__ = ["SubsetPage", "wilson"]

_Z = 1.959964  # of an interval that holds the truth 95 times of 100
_NO_SCORES = (
    "What was dropped, and how it differs, is in the scores that this was selected "
    "from: give their folder (--scores SCORES) to see it."
)


class SubsetPage:
    """The sections, one method each."""

    def __init__(
        self,
        subset: Subset,
        compared: Compared | None,
        examples: Examples,
        options: Options,
        name: str,
    ) -> None:
        self._subset = subset
        self._compared = compared
        self._examples = examples
        self._num_shown = options.num_examples
        self._name = name
        self._whole = int(subset.metadata["num_examples"])
        weights = subset.weights.astype(np.float64)
        squares = float(np.square(weights).sum())
        self._effective = float(weights.sum()) ** 2 / squares if squares else 0.0

    def sentence(self) -> str:
        size = len(self._subset.ids)
        policy = self._subset.metadata["policy"]
        where = self._subset.metadata["where"]
        by = [] if policy is None else [f"by {policy['name']}"]
        by += [f"where {where}"] if where else []
        return (
            f"{size:,} of {self._whole:,} examples ({share(size, self._whole)}), "
            f"selected {', '.join(by) or 'as they are'}."
        )

    def overview(self) -> Section:
        size, weights = len(self._subset.ids), self._subset.weights
        rows = [
            ("selected", f"{size:,} ({share(size, self._whole)})"),
            (
                "dropped",
                f"{self._whole - size:,} ({share(self._whole - size, self._whole)})",
            ),
        ]
        if self._is_weighted:
            low, high = float(weights.min()), float(weights.max())
            rows += [
                ("weights", f"{number(low)} to {number(high)}"),
                ("worth, by weights", f"{self._effective:,.0f} examples"),
            ]
        rows += [
            (name.replace("_", " "), number(float(value)))
            for name, value in sorted(self._subset.metadata["stats"].items())
        ]
        parts: list[Block] = [Table((), rows)]
        if self._compared is None:
            parts.append(Note(_NO_SCORES))
        return Section("overview", "Overview", parts)

    def differences(self, compared: Compared) -> Section:
        rows: list[tuple[str, ...]] = []
        parts: list[Block] = []
        for name, whole in compared.whole.each.items():
            kept, dropped = compared.kept.each[name], compared.dropped[name]
            if not whole.survey.count:
                continue
            rows.append(
                (
                    name,
                    number(whole.median),
                    _or_dash(kept.median, kept.survey.count),
                    number(whole.survey.mean),
                    _or_dash(kept.survey.mean, kept.survey.count),
                    _or_dash(dropped.mean, dropped.count),
                )
            )
            parts.append(self._overlay(compared, whole))
        header = (
            "score",
            "median: all",
            "selected",
            "mean: all",
            "selected",
            "dropped",
        )
        if compared.left_out is not None:
            parts.insert(0, Note(compared.left_out))
        return Section(
            "differences", "Selected, and all", [Table(header, rows), *parts]
        )

    def domains(self, groups: Groups, counts: np.ndarray) -> Section:
        shown = [(code, name) for code, name in groups.largest() if counts[code, 0]]
        codes = np.array([code for code, _ in shown])
        totals, kept = counts[codes].T
        rates = 100 * (totals - kept) / totals
        low, high = wilson(totals - kept, totals)
        order: list[int] = np.argsort(-rates, kind="stable").tolist()
        overall = 100 * (1 - counts[:, 1].sum() / max(counts[:, 0].sum(), 1))
        labels = labels_of([shown[i][1] for i in order])
        png = figures.intervals(
            labels.texts,
            totals[order].tolist(),
            rates[order],
            100 * low[order],
            100 * high[order],
            float(overall),
            "dropped (% of the examples)",
        )
        caption = (
            f"What was dropped, by {groups.column}; the bar is a 95 % interval "
            f"(Wilson). Dashed: {overall:.1f} % of all. In brackets, examples."
        )
        rows = [
            (
                shown[i][1],
                f"{totals[i]:,}",
                f"{kept[i]:,}",
                f"{rates[i]:.1f} %",
                f"{100 * low[i]:.1f} to {100 * high[i]:.1f} %",
                share(totals[i], counts[:, 0].sum()),
                share(kept[i], counts[:, 1].sum()),
            )
            for i in order
        ]
        header = (
            groups.column,
            "examples",
            "selected",
            "dropped",
            "95 % interval",
            "of all",
            "of the selected",
        )
        parts: list[Block] = [Figure("drop-rates", png, caption)]
        if labels.note is not None:
            parts.append(Note(labels.note))
        parts.append(Table(header, rows))
        if len(groups) > len(shown):
            parts.append(
                Note(f"The {len(shown)} largest of {len(groups):,} are shown.")
            )
        return Section("domains", f"Dropped, by {groups.column}", parts)

    def weights(self) -> list[Section]:
        if not self._is_weighted:
            return []
        survey = Survey(1)
        survey.add(self._subset.ids, self._subset.weights)
        edges = np.linspace(survey.minimum, survey.maximum, 49)
        histogram = Histogram(edges)
        histogram.add(self._subset.weights)
        png = figures.histogram(
            edges, histogram.counts, "weight", {"mean": survey.mean}, log=False
        )
        caption = (
            "Weights of the selected examples. By them, the subset is worth "
            f"{self._effective:,.0f} examples of equal weight."
        )
        parts = [Figure("weights", png, caption)]
        return [Section("weights", "Weights", parts)]

    def examples(self) -> Section:
        parts: list[Block] = [] if self._examples.are_shown else [Note(NO_POOL)]
        main = None if self._compared is None else self._compared.main()
        if self._compared is not None and main is not None:
            name, is_higher = main
            kept, dropped = self._compared.kept.each[name], self._compared.dropped[name]
            better, worse = (
                ("highest", "lowest") if is_higher else ("lowest", "highest")
            )
            parts.append(
                Note(
                    f"By {name}, which tells best what was selected: the selected "
                    f"have a {'higher' if is_higher else 'lower'} one."
                )
            )
            for title, which in (
                (f"Dropped, with the {better} {name}", _end(dropped, better)),
                (f"Selected, with the {worse} {name}", _end(kept.survey, worse)),
                (f"Selected, with the {better} {name}", _end(kept.survey, better)),
                (f"Dropped, with the {worse} {name}", _end(dropped, worse)),
            ):
                if len(which.ids):
                    parts.append(self._gallery(title, which, name))
        elif self._subset.scores is not None:
            survey = Survey(self._num_shown)
            survey.add(self._subset.ids, self._subset.scores)
            parts += [
                self._gallery(
                    "Selected, with the highest score", survey.highest, "score"
                ),
                self._gallery(
                    "Selected, with the lowest score", survey.lowest, "score"
                ),
            ]
        else:
            spread = np.linspace(0, len(self._subset.ids) - 1, self._num_shown)
            ids = np.unique(self._subset.ids[spread.astype(np.int64)])
            cards = self._examples.cards(ids, [[] for _ in ids])
            parts.append(Gallery("Some of the selected", cards))
        return Section("examples", "Examples", parts)

    def selection(self) -> Section:
        metadata = self._subset.metadata
        rows = [("file", self._name)]
        rows += [
            (key.replace("_", " "), _shown(metadata[key]))
            for key in sorted(metadata)
            if key not in ("stats", "format") and metadata[key] not in (None, [], {})
        ]
        return Section("selection", "How it was selected", [Table((), rows)])

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "kind": "subset",
            "num_examples": self._whole,
            "num_selected": len(self._subset.ids),
            "pool_fingerprint": self._subset.metadata["pool_fingerprint"],
            "effective_size": self._effective,
        }
        if self._compared is not None:
            found["scores"] = {
                name: {
                    "median": each.median,
                    "median_selected": self._compared.kept.each[name].median,
                    "mean": each.survey.mean,
                    "mean_selected": self._compared.kept.each[name].survey.mean,
                    "mean_dropped": self._compared.dropped[name].mean,
                }
                for name, each in self._compared.whole.each.items()
            }
        return found

    def lines(self) -> Iterator[str]:
        yield f"subset {self._name}: {self.sentence()}"
        if self._compared is None:
            return
        names = {name: one_line(name) for name in self._compared.whole.each}
        width = max(map(len, names.values()), default=5)
        columns = ("all", "selected", "dropped")
        yield f"  {'mean':{width}} " + "".join(f"{name:>12}" for name in columns)
        for name, each in self._compared.whole.each.items():
            kept = self._compared.kept.each[name].survey
            surveys = (each.survey, kept, self._compared.dropped[name])
            shown = (_or_dash(survey.mean, survey.count) for survey in surveys)
            yield f"  {names[name]:{width}} " + "".join(f"{t:>12}" for t in shown)

    @property
    def _is_weighted(self) -> bool:
        weights = self._subset.weights
        return bool(len(weights)) and bool((weights != weights[0]).any())

    def _overlay(self, compared: Compared, whole: Number) -> Figure:
        png = figures.overlay(
            whole.histogram.edges,
            whole.histogram.counts,
            compared.histograms[whole.name].counts,
            axis_label(whole.name, compared.kind),
            ("all", "selected"),
            log=whole.is_log,
        )
        caption = f"{whole.name} of all examples, and of the selected."
        return Figure(f"{slug(whole.name)}-difference", png, caption)

    def _gallery(self, title: str, which: Kept, name: str) -> Gallery:
        facts = [[(name, number(float(value)))] for value in which.values]
        return Gallery(title, self._examples.cards(which.ids, facts))


def wilson(part: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of 95 % intervals of shares (Wilson 1927)."""
    rate = part / whole
    scale = 1 + _Z**2 / whole
    centre = (rate + _Z**2 / (2 * whole)) / scale
    half = _Z * np.sqrt(rate * (1 - rate) / whole + (_Z / (2 * whole)) ** 2) / scale
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def _end(survey: Survey, which: str) -> Kept:
    return survey.highest if which == "highest" else survey.lowest


def _or_dash(value: float, count: int) -> str:
    return number(value) if count else "-"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
