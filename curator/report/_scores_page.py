"""The sections of a report on scores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from curator.report import _figures as figures
from curator.report._content import Block, Card, Figure, Gallery, Note, Section, Table
from curator.report._duplicates import DuplicateGroups
from curator.report._embeddings import SAMPLE, Embeddings
from curator.report._examples import NO_POOL, Examples
from curator.report._labels import labels_of
from curator.report._numbers import Number, Numbers
from curator.report._statistics import Kept
from curator.report._words import axis_label, number, share, slug

__all__ = ["ScoresPage"]

_MAX_SCORES = 12  # shown; more are only in the table
_MAX_PAIRS = 6


class ScoresPage:
    """The sections, one method each."""

    def __init__(self, numbers: Numbers, kind: str | None, examples: Examples) -> None:
        self._numbers = numbers
        self._kind = kind
        self._examples = examples
        self._shown = list(itertools.islice(numbers.each.values(), _MAX_SCORES))

    def distributions(self, left_out: str | None) -> Section:
        parts: list[Block] = [_quantile_table(list(self._numbers.each.values()))]
        if len(self._shown) < len(self._numbers.each):
            parts.append(Note(f"The first {_MAX_SCORES} are shown below."))
        for each in self._shown:
            if not each.survey.count:
                parts.append(Note(f"{each.name} is finite for no example."))
                continue
            marks = {
                "5 %": each.quantiles[0.05],
                "median": each.median,
                "95 %": each.quantiles[0.95],
            }
            png = figures.histogram(
                each.histogram.edges,
                each.histogram.counts,
                self._label(each),
                marks,
                log=each.is_log,
            )
            outside = each.histogram.num_outside
            beyond = (
                f" {outside:,} lie beyond the edges: the least is "
                f"{number(each.survey.minimum)}, the greatest "
                f"{number(each.survey.maximum)}."
                if outside
                else ""
            )
            axis = ", on a logarithmic axis" if each.is_log else ""
            caption = f"How many examples have which {each.name}{axis}.{beyond}"
            parts.append(Figure(f"{slug(each.name)}-distribution", png, caption))
        if not parts[1:]:
            parts.append(Note("There is no score that is one number for each example."))
        if left_out is not None:
            parts.insert(1, Note(left_out))
        return Section("distributions", "Distributions", parts)

    def relations(self) -> list[Section]:
        pairs = [
            (abs(rho), rho, first, second)
            for first, second in itertools.combinations(self._shown, 2)
            if (rho := self._correlation(first, second)) is not None
        ]
        if not pairs:
            return []
        pairs.sort(key=lambda pair: -pair[0])
        size = len(next(iter(self._numbers.sample.values())))
        of = (
            "all examples"
            if size == self._numbers.num_examples
            else f"a random sample of {size:,} examples"
        )
        parts: list[Block] = []
        for _, rho, first, second in pairs[:_MAX_PAIRS]:
            values = [self._numbers.sample[each.name] for each in (first, second)]
            inside = np.all(
                [
                    np.isfinite(v)
                    & (v >= e.histogram.edges[0])
                    & (v <= e.histogram.edges[-1])
                    for v, e in zip(values, (first, second), strict=True)
                ],
                axis=0,
            )
            png = figures.relation(
                values[0][inside],
                values[1][inside],
                (self._label(first), self._label(second)),
                logs=(first.is_log, second.is_log),
            )
            caption = (
                f"{second.name} against {first.name}, {of}. Spearman's rank "
                f"correlation {rho:+.2f}."
            )
            name = f"{slug(first.name)}-{slug(second.name)}"
            parts.append(Figure(f"{name}-relation", png, caption))
        if len(pairs) > _MAX_PAIRS:
            parts.append(
                Note(f"The {_MAX_PAIRS} closest of {len(pairs)} relations are shown.")
            )
        return [Section("relations", "Relations", parts)]

    def domains(self) -> list[Section]:
        groups = self._numbers.groups
        if groups is None:
            return []
        largest = groups.largest()
        labels = labels_of([name for _, name in largest])
        parts: list[Block] = []
        if labels.note is not None:
            parts.append(Note(labels.note))
        if len(groups) > len(largest):
            parts.append(
                Note(f"The {len(largest)} largest of {len(groups):,} are shown.")
            )
        for each in self._shown:
            if each.groups is None:
                continue
            codes = [code for code, _ in largest]
            quantiles = each.groups.quantiles(0.05, 0.25, 0.5, 0.75, 0.95)[codes]
            sizes = each.groups.sizes[codes]
            ranked: list[int] = np.argsort(-quantiles[:, 2], kind="stable").tolist()
            order = [i for i in ranked if sizes[i]]
            if each.is_log:
                quantiles = 10.0**quantiles
            png = figures.boxes(
                [labels.texts[i] for i in order],
                sizes[order].tolist(),
                quantiles[order],
                self._label(each),
                each.median,
                log=each.is_log,
            )
            caption = (
                f"{each.name} by {groups.column}, highest median first: the middle "
                "half of the examples (bar), 5 to 95 % of them (line), the median "
                "(mark). Dashed: the median of all. In brackets, examples."
            )
            parts.append(Figure(f"{slug(each.name)}-domains", png, caption))
        return [Section("domains", f"By {groups.column}", parts)]

    def examples(self) -> list[Section]:
        parts: list[Block] = []
        if not self._examples.are_shown:
            parts.append(Note(NO_POOL))
        for each in self._shown:
            if not each.survey.count:
                continue
            for which, title, caption in (
                (each.survey.highest, f"Highest {each.name}", ""),
                (
                    each.borderline,
                    f"Borderline {each.name}",
                    f"Nearest to the median, {number(each.median)}.",
                ),
                (each.survey.lowest, f"Lowest {each.name}", ""),
            ):
                cards = self._cards(which, each.name)
                parts.append(Gallery(title, cards, caption))
        return [Section("examples", "Examples", parts)] if parts else []

    def not_finite(self) -> list[Section]:
        parts: list[Block] = []
        for each in self._shown:
            if not len(each.not_finite):
                continue
            total = each.survey.num_nan + each.survey.num_infinite
            facts = [[(each.name, "not finite")] for _ in each.not_finite]
            cards = self._examples.cards(each.not_finite, facts)
            caption = (
                f"{total:,} examples: {each.survey.num_nan:,} are not a number and "
                f"{each.survey.num_infinite:,} are infinite. The first of them are "
                "shown. Policies put such examples aside."
            )
            parts.append(Gallery(f"{each.name} is not finite", cards, caption))
        return [Section("not-finite", "Not finite", parts)] if parts else []

    def duplicates(
        self, embeddings: Embeddings, found: DuplicateGroups, num_shown: int
    ) -> Section:
        of = (
            f"all {found.num_examples:,} examples"
            if found.num_examples == self._numbers.num_examples
            else f"a random sample of {found.num_examples:,} examples ({SAMPLE:,} at "
            "most are compared; among all there are more)"
        )
        text = (
            f"Of {of}, {found.num_redundant:,} "
            f"({share(found.num_redundant, found.num_examples)}) have "
            f"{embeddings.name} with a cosine above {found.threshold:g} to those of "
            f"another, in {len(found.groups):,} groups."
        )
        parts: list[Block] = [Note(text)]
        for index, (ids, similarities) in enumerate(
            zip(found.groups[:num_shown], found.similarities, strict=False)
        ):
            facts = [
                [("cosine", "stands for the group" if np.isnan(s) else f"{s:.3f}")]
                for s in similarities[:num_shown]
            ]
            cards = self._examples.cards(ids[:num_shown], facts)
            more = f", {num_shown} of them shown" if len(ids) > num_shown else ""
            title = f"Group {index + 1}: {len(ids):,} examples{more}"
            parts.append(Gallery(title, cards))
        return Section("near-duplicates", "Near-duplicates", parts)

    def _cards(self, which: Kept, name: str) -> list[Card]:
        facts = [[(name, number(float(value)))] for value in which.values]
        return self._examples.cards(which.ids, facts)

    def _label(self, each: Number) -> str:
        return axis_label(each.name, self._kind)

    def _correlation(self, first: Number, second: Number) -> float | None:
        """Returns Spearman's rank correlation; None where it says nothing."""
        values = [self._numbers.sample[each.name] for each in (first, second)]
        finite = np.isfinite(values[0]) & np.isfinite(values[1])
        if finite.sum() < 3:
            return None
        ranked = [_ranks(each[finite]) for each in values]
        if any(np.ptp(each) == 0 for each in ranked):
            return None
        return float(np.corrcoef(ranked[0], ranked[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks; equal numbers share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def _quantile_table(numbers: Sequence[Number]) -> Table:
    shown = (0.05, 0.25, 0.5, 0.75, 0.95)
    header = ["score", "mean", "deviation", "least"]
    header += ["median" if q == 0.5 else f"{100 * q:g} %" for q in shown]
    header += ["greatest", "not finite"]
    rows: list[list[str]] = []
    for each in numbers:
        survey = each.survey
        bad = survey.num_nan + survey.num_infinite
        if not survey.count:
            rows.append([each.name, *["-"] * (len(header) - 2), f"{bad:,}"])
            continue
        values = [survey.mean, survey.deviation, survey.minimum]
        values += [each.quantiles[q] for q in shown] + [survey.maximum]
        rows.append([each.name, *map(number, values), f"{bad:,}" if bad else "-"])
    return Table(header, rows)
