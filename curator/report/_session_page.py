"""The sections of a report on a session."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from curator.config import SessionSpec, session_to_table
from curator.report import _figures as figures
from curator.report._content import Block, Figure, Gallery, Note, Section, Table
from curator.report._examples import Examples
from curator.report._groups import Groups
from curator.report._labels import labels_of
from curator.report._timeline import Timeline
from curator.report._words import duration, number, share

__all__ = ["SessionPage"]

_MAX_BANDS = 6
_NO_POOL = (
    "Only ids are shown: give the server's CONFIG.toml instead of its state directory "
    "to see the examples themselves, and how domains were mixed."
)
_COSTS = {  # of a step's entries, those that are seconds
    "scoring_seconds": "scoring",
    "selection_seconds": "selection",
}


class SessionPage:
    """The sections, one method each."""

    def __init__(
        self,
        name: str,
        spec: SessionSpec,
        known: Mapping[str, str],
        timeline: Timeline,
        totals: Mapping[str, float],
        groups: Groups | None,
        codes: np.ndarray | None,
    ) -> None:
        self._name = name
        self._spec = spec
        self._known = known
        self._line = timeline
        self._totals = totals
        self._groups = groups
        self._codes = codes
        self._size = len(timeline.counts)
        self._num_distinct = int((timeline.counts > 0).sum())

    def sentence(self) -> str:
        spec, line = self._spec, self._line
        policy = cast(
            "dict[str, object]",
            session_to_table(spec).get("policy", {"name": "uniform"}),
        )
        of = (
            f", {spec.batch_size:,} of {spec.super_batch_size:,} candidates each"
            if spec.super_batch_size > spec.batch_size
            else f" of {spec.batch_size:,} examples"
        )
        return f"{line.num_steps:,} steps{of}, chosen by {policy['name']}."

    def overview(self) -> Section:
        line = self._line
        first = int(line.at[0])
        last = first + line.num_steps - 1
        rows = [
            ("steps", f"{line.num_steps:,} ({first:,} to {last:,})"),
            ("epochs of the sampler", f"{line.epochs[0]:,} to {line.epochs[1]:,}"),
            ("examples of the pool", f"{self._size:,}"),
            (
                "examples trained on",
                f"{line.num_chosen:,}: {self._effective_epochs:.2f} times the pool",
            ),
            (
                "different ones",
                f"{self._num_distinct:,} ({share(self._num_distinct, self._size)})",
            ),
            ("defined ahead", f"{line.num_open:,} steps, not in this report"),
            ("late steps", f"{line.num_late:,} drawn uniformly"),
            ("skipped steps", f"{line.num_skipped:,}"),
            ("quarantined", f"{self._sum('num_quarantined'):,.0f} candidates"),
        ]
        parts: list[Block] = [Table((), rows)]
        if first:
            parts.append(
                Note(
                    f"Steps before {first:,} are not kept any more "
                    "(server.keep_steps), and are not in this report."
                )
            )
        if line.steps_per_point > 1:
            parts.append(
                Note(f"A point of a plot is of {line.steps_per_point:,} steps.")
            )
        return Section("overview", "Overview", parts)

    def scores(self) -> list[Section]:
        line = self._line
        parts: list[Block] = []
        if np.isfinite(line.scores).any():
            low, first, middle, third, high = line.scores.T
            png = figures.steps(
                line.at,
                [(low, high), (first, third)],
                {"median": middle},
                "score of what was chosen",
            )
            caption = (
                "What the policy ranked by: median of the chosen examples, and where "
                "the middle half and 90 % of them lie."
            )
            parts.append(Figure("scores", png, caption))
        if np.isfinite(line.loss).any():
            png = figures.steps(line.at, [], {"loss": line.loss}, "mean loss reported")
            caption = "What the trainer reported of the chosen examples."
            parts.append(Figure("losses", png, caption))
        if line.num_weighted:
            low, mean, high = line.weights.T
            png = figures.steps(
                line.at, [(low, high)], {"mean": mean}, "weight", from_zero=True
            )
            caption = "Weights of the losses: the mean, and from the least to the most."
            parts.append(Figure("weights", png, caption))
        if np.isfinite(line.staleness).any():
            png = figures.steps(
                line.at,
                [],
                {"staleness": line.staleness},
                "learner steps",
                from_zero=True,
            )
            caption = (
                "Staleness: how many learner steps old the weights were that a step "
                "was scored with."
            )
            parts.append(Figure("staleness", png, caption))
        odd = {
            text: line.stats[name]
            for name, text in (
                ("num_quarantined", "quarantined"),
                ("num_topped_up", "drawn uniformly instead"),
            )
            if name in line.stats and line.stats[name].any()
        }
        if odd:
            png = figures.steps(line.at, [], odd, "candidates", from_zero=True)
            caption = "Candidates that were put aside: a score was not finite."
            parts.append(Figure("quarantined", png, caption))
        return [Section("steps", "Step by step", parts)] if parts else []

    def choices(self) -> Section:
        counts = self._line.counts
        most = int(counts.max(initial=0))
        numbers = np.bincount(np.minimum(counts, 40))
        bars = {i: int(n) for i, n in enumerate(numbers)}
        png = figures.counts(bars, "times chosen", "examples of the pool")
        more = " 40 stands for 40 and more." if most > 40 else ""
        caption = (
            f"How often each example of the pool was in a batch: {bars[0]:,} never, "
            f"one of them {most:,} times.{more}"
        )
        ranked = np.sort(counts)[::-1].astype(np.float64)
        total = max(float(ranked.sum()), 1.0)
        rows = [
            (
                f"{percent} %",
                share(ranked[: -(-percent * len(ranked) // 100)].sum(), total),
            )
            for percent in (1, 5, 10, 25, 50)
        ]
        table = Table(
            ("of the pool, most chosen", "share of what was trained on"), rows
        )
        figure = Figure("times-chosen", png, caption)
        return Section("choices", "How often examples were chosen", [figure, table])

    def domains(self) -> list[Section]:
        if self._groups is None or self._codes is None:
            return []
        groups, line = self._groups, self._line
        largest = groups.largest()
        in_pool = np.bincount(self._codes, minlength=len(groups))
        chosen = np.bincount(self._codes, self._line.counts, len(groups))
        distinct = np.bincount(self._codes[line.counts > 0], minlength=len(groups))
        rows = [
            (
                name,
                f"{in_pool[code]:,}",
                share(in_pool[code], self._size),
                share(chosen[code], line.num_chosen),
                f"{chosen[code] / in_pool[code]:.2f}",
                share(in_pool[code] - distinct[code], in_pool[code]),
            )
            for code, name in largest
        ]
        header = (
            groups.column,
            "examples",
            "of the pool",
            "of what was chosen",
            "times chosen",
            "never chosen",
        )
        parts: list[Block] = [Table(header, rows)]
        if len(groups) > len(largest):
            parts.append(
                Note(f"The {len(largest)} largest of {len(groups):,} are shown.")
            )
        if len(line.at) > 1:
            shown = largest[:_MAX_BANDS]
            labels = labels_of([name for _, name in shown])
            names = list(labels.texts)
            bands = [100 * line.groups[:, code] for code, _ in shown]
            if len(groups) > len(shown):
                names.append("others")
                bands.append(np.maximum(100 - np.sum(bands, axis=0), 0))
            png = figures.shares(line.at, names, bands, "% of what was chosen")
            caption = f"{groups.column} of the chosen examples, over the steps."
            parts.append(Figure("mixture", png, caption))
            if labels.note is not None:
                parts.append(Note(labels.note))
        return [Section("domains", f"By {groups.column}", parts)]

    def examples(self, examples: Examples, num_shown: int) -> Section:
        counts = self._line.counts
        most = np.argsort(-counts.astype(np.int64), kind="stable")[:num_shown]
        most = most[counts[most] > 0]
        parts: list[Block] = [] if examples.are_shown else [Note(_NO_POOL)]
        facts = [[("times chosen", f"{counts[i]:,}")] for i in most]
        parts.append(Gallery("Chosen most often", examples.cards(most, facts)))
        never = np.flatnonzero(counts == 0)
        if len(never):
            # Spread over the pool: its first examples need not be typical.
            spread = np.linspace(0, len(never) - 1, min(num_shown, len(never)))
            rare = never[spread.astype(np.int64)]
            title = "Never chosen"
            caption = f"{len(never):,} examples, some of them shown."
        else:
            rare = np.argsort(counts, kind="stable")[:num_shown]
            title, caption = "Chosen least often", ""
        facts = [[("times chosen", f"{counts[i]:,}")] for i in rare]
        parts.append(Gallery(title, examples.cards(rare, facts), caption))
        return Section("examples", "Examples", parts)

    def cost(self) -> Section:
        line = self._line
        parts: list[Block] = []
        seconds = {
            text: line.stats[name] / line.steps_per_point
            for name, text in _COSTS.items()
            if name in line.stats and line.stats[name].any()
        }
        rows = [
            (
                name.replace("_", " "),
                duration(total) if name in _COSTS else number(total),
            )
            for name, total in sorted(self._totals.items())
            if name.startswith("num_") or name in _COSTS
        ]
        if seconds:
            png = figures.steps(
                line.at,
                [],
                seconds,
                "seconds per step",
                log=all((each > 0).all() for each in seconds.values()),
            )
            parts.append(Figure("cost", png, "What choosing a batch took."))
        parts.append(Table((), rows, "Totals, of the whole session:"))
        return Section("cost", "Cost", parts)

    def specification(self) -> Section:
        rows = [(key, json.dumps(v)) for key, v in session_to_table(self._spec).items()]
        rows.append(("fingerprint of the pool", self._known["pool"]))
        return Section("specification", "What the session is", [Table((), rows)])

    def summary(self) -> dict[str, Any]:
        line = self._line
        return {
            "kind": "session",
            "session": self._name,
            "pool_fingerprint": self._known["pool"],
            "num_examples": self._size,
            "first_step": int(line.at[0]),
            "num_steps": line.num_steps,
            "num_chosen": line.num_chosen,
            "num_distinct": self._num_distinct,
            "effective_epochs": self._effective_epochs,
            "num_late": line.num_late,
            "num_skipped": line.num_skipped,
            "num_quarantined": self._sum("num_quarantined"),
            "totals": dict(sorted(self._totals.items())),
        }

    def lines(self) -> Iterator[str]:
        line = self._line
        yield f"session {self._name}: {self.sentence()}"
        yield (
            f"  trained on  {line.num_chosen:,} examples, "
            f"{self._effective_epochs:.2f} times the pool of {self._size:,}"
        )
        yield (
            f"  different   {self._num_distinct:,} "
            f"({share(self._num_distinct, self._size)}), one of them "
            f"{int(line.counts.max(initial=0)):,} times"
        )
        if np.isfinite(line.scores).any():
            first, last = line.scores[0][2], line.scores[-1][2]
            yield (
                f"  scores      median of what was chosen {number(float(first))} at "
                f"first, {number(float(last))} at last"
            )
        yield (
            f"  odd         {line.num_late:,} late steps, {line.num_skipped:,} "
            f"skipped, {self._sum('num_quarantined'):,.0f} candidates quarantined"
        )
        spent = [
            f"{text} {duration(self._totals[name])}"
            for name, text in _COSTS.items()
            if name in self._totals
        ]
        if spent:
            yield f"  cost        {', '.join(spent)}"

    @property
    def _effective_epochs(self) -> float:
        return self._line.num_chosen / self._size

    def _sum(self, name: str) -> float:
        values = self._line.stats.get(name)
        return 0.0 if values is None else float(values.sum())
