"""The report on scores: what they are like, and which examples have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from curator.offline import Scores
from curator.pools import Pool
from curator.report._columns import Columns, choose_columns
from curator.report._content import (
    Block,
    Note,
    Report,
    Section,
    Table,
)
from curator.report._duplicates import DuplicateGroups, group_duplicates
from curator.report._embeddings import left_out, numbers_of, read_embeddings
from curator.report._examples import Examples
from curator.report._groups import Groups
from curator.report._numbers import SHARES, Numbers, read_numbers
from curator.report._options import Options
from curator.report._scores_page import ScoresPage
from curator.report._words import megabytes, number, one_line

__all__ = ["report_scores"]


def report_scores(scores: Scores, pool: Pool | None, options: Options) -> Report:
    """Returns the report on a folder of scores.

    Args:
        scores: What was scored.
        pool: The examples; None where they are not at hand.
        options: How much is shown.

    Raises:
        ConfigError: A column that the user named cannot be shown as what he said.
        PoolError: The pool cannot be read.
        StorageError: The scores cannot be read.
    """
    model = {} if scores.manifest is None else dict(scores.manifest["model"])
    columns = Columns()
    if pool is not None:
        columns = choose_columns(pool, options.choice, model.get("label"))
    groups = None
    if pool is not None and columns.group is not None:
        groups = Groups(pool, columns.group)
    embeddings = read_embeddings(scores)
    names, read = numbers_of(scores, embeddings)
    numbers = read_numbers(
        read,
        names,
        scores.num_examples,
        options.num_examples,
        groups,
        must_group=options.choice.group is not None,
    )
    page = ScoresPage(numbers, model.get("kind"), Examples(pool, columns))
    duplicates = None
    if embeddings is not None and len(embeddings.ids) > 1:
        duplicates = group_duplicates(
            embeddings.ids, embeddings.rows, options.threshold
        )
    sections = [
        page.distributions(left_out(scores)),
        *page.relations(),
        *page.domains(),
        *page.examples(),
        *page.not_finite(),
    ]
    if embeddings is not None and duplicates is not None:
        sections.append(page.duplicates(embeddings, duplicates, options.num_examples))
    sections.append(_origin(scores, model, columns))
    return Report(
        title=f"Scores of {scores.num_examples:,} examples",
        subtitle=_subtitle(scores, model, numbers),
        sections=sections,
        summary=_summary(scores, numbers, duplicates),
        lines=list(_lines(scores, numbers, duplicates)),
    )


def _subtitle(scores: Scores, model: dict[str, Any], numbers: Numbers) -> str:
    outputs = ", ".join(sorted(scores.outputs))
    by = f", by a {model['kind']} model" if "kind" in model else ""
    factory = f" ({model['factory']})" if model.get("factory") else ""
    return f"{outputs}{by}{factory}."


def _origin(scores: Scores, model: dict[str, Any], columns: Columns) -> Section:
    rows = [
        ("scores", scores.path.name),
        ("size", megabytes(scores.num_bytes)),
        ("examples", f"{scores.num_examples:,}"),
        ("outputs", ", ".join(sorted(scores.outputs))),
    ]
    manifest = scores.manifest
    if manifest is not None:
        rows += [
            ("pool", manifest["pool_fingerprint"]),
            ("model", manifest["model_fingerprint"]),
            *(
                (f"model: {key.replace('_', ' ')}", _value(value))
                for key, value in sorted(model.items())
                if value not in (None, [], {}, "")
            ),
            *(
                (f"version of {name}", version)
                for name, version in sorted(manifest["versions"].items())
            ),
        ]
    if columns.group is not None:
        rows.append(("grouped by", columns.group))
    parts: list[Block] = [Table((), rows)]
    if manifest is None:
        parts.append(Note("The files do not say which pool and model they are of."))
    return Section("origin", "Where they are from", parts)


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - of JSON
    return str(value)


def _summary(
    scores: Scores, numbers: Numbers, duplicates: DuplicateGroups | None
) -> dict[str, object]:
    found: dict[str, object] = {
        "kind": "scores",
        "num_examples": scores.num_examples,
        "pool_fingerprint": scores.pool_fingerprint,
        "model_fingerprint": scores.model_fingerprint,
        "scores": {
            name: {
                "num_finite": each.survey.count,
                "num_nan": each.survey.num_nan,
                "num_infinite": each.survey.num_infinite,
                "mean": each.survey.mean,
                "deviation": each.survey.deviation,
                "min": each.survey.minimum,
                "max": each.survey.maximum,
                "quantiles": {f"{q:g}": each.quantiles[q] for q in SHARES},
                "highest": each.survey.highest.ids.tolist(),
                "lowest": each.survey.lowest.ids.tolist(),
                "borderline": each.borderline.ids.tolist(),
            }
            for name, each in numbers.each.items()
        },
    }
    if duplicates is not None:
        found["near_duplicates"] = {
            "num_examples": duplicates.num_examples,
            "threshold": duplicates.threshold,
            "num_redundant": duplicates.num_redundant,
            "num_groups": len(duplicates.groups),
        }
    return found


def _lines(
    scores: Scores, numbers: Numbers, duplicates: DuplicateGroups | None
) -> Iterator[str]:
    yield f"scores of {scores.num_examples:,} examples in {scores.path}"
    names = {name: one_line(name) for name in numbers.each}
    width = max(map(len, names.values()), default=5)
    if numbers.each:
        columns = ["5 %", "median", "95 %", "mean", "not finite"]
        yield f"  {'':{width}} " + "".join(f"{name:>12}" for name in columns)
    for name, each in numbers.each.items():
        values = [each.quantiles[q] for q in (0.05, 0.5, 0.95)] + [each.survey.mean]
        bad = each.survey.num_nan + each.survey.num_infinite
        shown = [number(v) if each.survey.count else "-" for v in values]
        counted = [*shown, f"{bad:,}"]
        yield f"  {names[name]:{width}} " + "".join(f"{t:>12}" for t in counted)
    if duplicates is not None:
        yield (
            f"  {duplicates.num_redundant:,} of {duplicates.num_examples:,} are "
            f"near-duplicates (cosine above {duplicates.threshold:g}), in "
            f"{len(duplicates.groups):,} groups"
        )
