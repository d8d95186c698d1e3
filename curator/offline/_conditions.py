"""Conditions on what is known of an example: ``loss < percentile(loss, 90)``.

The grammar is that of :class:`curator.offline.Where`, of names with dots and with
percentiles: both are put into what that knows.

Shapes: ``N`` examples.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from decimal import Decimal
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Shaped

from curator.errors import ConfigError
from curator.offline._where import Where

__all__ = ["Values", "meets"]

Values: TypeAlias = Callable[[str], np.ndarray]
"""Returns one value per example, by name."""

_PERCENTILE = "percentile"


def meets(text: str, values: Values) -> Bool[np.ndarray, " N"]:
    """Returns for which examples a condition is true.

    Numbers that are not finite are like nulls: what is compared with them is neither
    true nor false.

    Args:
        text: The condition. ``percentile(NAME, P)`` is of all finite values, by linear
            interpolation, as ``numpy.percentile``.
        values: Of all examples.

    Raises:
        ConfigError: It is no condition, or a name or a type does not fit.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        where = Where(text)  # says what is wrong with it
    else:
        try:
            plain = ast.unparse(_Plain(text, values).visit(tree))
        except RecursionError:
            plain = text  # which is refused for what it is
        where = Where(plain)
    columns = {name: pa.array(values(name), from_pandas=True) for name in where.columns}
    return where.of(pa.record_batch(columns))


class _Plain(ast.NodeTransformer):
    """Writes ``a.b`` as ``column("a.b")``, and a percentile as a number."""

    def __init__(self, text: str, values: Values) -> None:
        self._text = text
        self._values = values

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        """Replaces a name with dots."""
        name = _name(node)
        if name is None:
            return node
        return ast.parse(f"column({name!r})", mode="eval").body

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Replaces a percentile."""
        if not (isinstance(node.func, ast.Name) and node.func.id == _PERCENTILE):
            return node
        match [_name(node.args[0]) if node.args else None, *node.args[1:]]:
            case [str(name), ast.Constant(value=int() | float() as percent)] if (
                not node.keywords and 0 <= percent <= 100
            ):
                return ast.Constant(self._percentile(name, float(percent)))
            case _:
                msg = (
                    f"where: {self._text!r}: expected {_PERCENTILE}(NAME, P) with P "
                    f"from 0 to 100, such as {_PERCENTILE}(loss, 90); got "
                    f"{ast.unparse(node)}"
                )
                raise ConfigError(msg)

    def _percentile(self, name: str, percent: float) -> float:
        values = _numbers(self._values(name))
        if values is None:
            msg = f"where: {self._text!r}: {name!r} has no numbers, so no percentiles"
            raise ConfigError(msg)
        finite = values[np.isfinite(values)]
        if not len(finite):
            msg = f"where: {self._text!r}: {name!r} is finite for no example"
            raise ConfigError(msg)
        return float(np.percentile(finite, percent))


def _name(node: ast.expr) -> str | None:
    """Returns a name, with dots or without, or that of ``column("a name")``."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=inner, attr=attribute):
            name = _name(inner)
            return None if name is None else f"{name}.{attribute}"
        case ast.Call(func=ast.Name(id="column"), args=[ast.Constant(value=str(name))]):
            return name
        case _:
            return None


def _numbers(values: Shaped[np.ndarray, " N"]) -> Shaped[np.ndarray, " n"] | None:
    """Returns the numbers among values; None where others are among them."""
    if values.dtype.kind == "O":
        known = [value for value in values if value is not None]
        if not all(type(value) in (int, float, Decimal) for value in known):
            return None
        return np.array(known, np.float64)
    return values if values.dtype.kind in "iuf" else None
